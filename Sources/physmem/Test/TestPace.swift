// The current speed of this machine, from which `physmem test` derives time limits. A busy or a translated machine
// takes many times as long for everything, and a time limit is only for tasks that hang.

struct TestPace {
  /// Nanoseconds to create a machine and start a case's tasks on an idle machine.
  private static let nominal: UInt64 = 10_000_000
  private static let slowest: UInt64 = 40
  private static let remembered = 16

  private var recent: [UInt64] = []

  /// Records the nanoseconds it took to create a machine and start a case's tasks.
  mutating func record(_ duration: UInt64) {
    if recent.count == Self.remembered { recent.removeFirst() }
    recent.append(duration)
  }

  /// The factor by which things may take longer than on an idle machine, from 1 to 40.
  var slowness: Int { Int(min(Self.slowest, 1 + (recent.max() ?? 0) / Self.nominal)) }
}
