// A test switch: a thread that unmaps random frames, or moves random contents, while tasks run, as the server may at
// any time. Tests that pass under it show that tasks do not depend on a page staying mapped or in its frame.

internal import SystemPackage
import Synchronization

/// A thread that repeats a random disturbance at an interval.
final class Revoker: Sendable {
  private let gate = WaitGate()
  private let isStopping = Atomic<Bool>(false)
  private let thread = Mutex<HostThread?>(nil)

  /// Starts the thread.
  /// - Parameters:
  ///   - interval: microseconds between calls of `act`.
  ///   - act: called with a random number each time.
  func start(interval: UInt64, seed: UInt64, act: @escaping @Sendable (UInt64) -> Void) throws(Errno) {
    let started = try HostThread { [self] in run(interval * 1000, seed, act) }
    thread.withLock { $0 = started }
  }

  func stop() {
    isStopping.store(true, ordering: .releasing)
    gate.open()
    thread.withLock { $0.take() }?.join()
  }

  private func run(_ interval: UInt64, _ seed: UInt64, _ act: (UInt64) -> Void) {
    var random = seed | 1
    var next = monotonicNanoseconds() + interval
    while !isStopping.load(ordering: .acquiring) {
      gate.wait(until: next)
      // A sleep may be longer than the interval: catch up on the missed calls, at most 64 at once.
      let now = monotonicNanoseconds()
      let due = next > now ? 0 : min((now - next) / interval + 1, 64)
      for _ in 0..<due {
        // A linear congruential generator suffices: its sequence covers all values.
        random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        act(random >> 20)
      }
      next = max(next + due * interval, now)
    }
  }
}
