// How vCPU threads wait for one another. If a CPU is idle, a thread polls for a while before it sleeps: waking a
// sleeping thread takes longer than most answers.

internal import Glibc
import Synchronization

/// Counts running vCPU threads, to decide whether a waiting thread may poll.
final class WaitingThreads: Sendable {
  private let running = Atomic<Int>(0)
  private let cpus = max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN))))

  /// Nanoseconds of polling: enough for a partner's two exits and one wake-up. With less, two sleeping tasks wake each
  /// other forever, each just too late.
  private static let patience: UInt64 = 200_000

  /// Called when the calling thread has a task to run.
  func threadRuns() { running.wrappingAdd(1, ordering: .relaxed) }
  func threadWaits() { running.wrappingSubtract(1, ordering: .relaxed) }

  /// Whether a polling thread takes no CPU time from other threads of the machine.
  var hasSpareCPU: Bool { running.load(ordering: .relaxed) <= cpus }

  /// Like `gate.wait`, but polls before it sleeps.
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
