// How fast this machine is at the moment: what `physmem test` gives cases time by. A busy or a translated machine needs
// many times as long for everything, and a time limit is there to end what hangs.

struct TestPace {
  /// Nanoseconds that it takes to make a machine and start a case's tasks where nothing else runs.
  private static let nominal: UInt64 = 10_000_000
  private static let slowest: UInt64 = 40
  private static let remembered = 16

  private var recent: [UInt64] = []

  /// Takes note of how long it took to make a machine and start a case's tasks, in nanoseconds.
  mutating func record(_ duration: UInt64) {
    if recent.count == Self.remembered { recent.removeFirst() }
    recent.append(duration)
  }

  /// How many times as long as on a quiet machine things may take, from 1 to 40.
  var slowness: Int { Int(min(Self.slowest, 1 + (recent.max() ?? 0) / Self.nominal)) }
}
