// How vCPU threads wait for one another. With a CPU to spare a thread looks for its answer for a while before it
// sleeps: waking a sleeping thread takes longer than most answers.

internal import Glibc
import Synchronization

final class WaitingThreads: Sendable {
  private let running = Atomic<Int>(0)
  private let cpus = max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN))))

  /// What a partner needs for two exits, and to wake up once: with less, two tasks that have both gone to sleep wake each
  /// other for ever, each just too late.
  private static let patience: UInt64 = 200_000

  /// The calling thread has a task to run.
  func threadRuns() { running.wrappingAdd(1, ordering: .relaxed) }
  func threadWaits() { running.wrappingSubtract(1, ordering: .relaxed) }

  /// Whether a thread that waits takes a CPU from nobody.
  var hasSpareCPU: Bool { running.load(ordering: .relaxed) <= cpus }

  /// As `gate.wait`, first awake and then asleep.
  func wait(_ gate: WaitGate, until deadline: UInt64?) -> Bool {
    if hasSpareCPU {
      let end = min(deadline ?? .max, monotonicNanoseconds() + Self.patience)
      repeat {
        for _ in 0..<64 { if gate.pass() { return true } }
      } while monotonicNanoseconds() < end
    }
    threadWaits()
    defer { threadRuns() }
    return gate.wait(until: deadline)
  }
}
