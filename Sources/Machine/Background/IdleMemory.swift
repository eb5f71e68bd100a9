// The background thread that returns the memory of frames that stay free to the host (free page reporting). The rate is
// limited, because the next use of such a frame must populate it again.

internal import PhysicalMemory
internal import SystemPackage
import Synchronization

/// The background thread that returns the memory of idle frames to the host.
final class IdleMemory: Sendable {
  /// Nanoseconds between passes. Frames stay free for one to two intervals before their memory goes.
  private static let interval: UInt64 = 1_000_000_000

  private let gate = WaitGate()
  private let isStopping = Atomic<Bool>(false)
  private let thread = Mutex<HostThread?>(nil)

  /// - Parameter limit: most frames in one pass.
  func start(server: PhysicalMemoryServer, limit: Int) throws(Errno) {
    let started = try HostThread { [self] in
      while !isStopping.load(ordering: .acquiring) {
        gate.wait(until: monotonicNanoseconds() + Self.interval)
        Self.pass(server: server, limit: limit) { isStopping.load(ordering: .acquiring) }
      }
    }
    thread.withLock { $0 = started }
  }

  func stop() {
    isStopping.store(true, ordering: .releasing)
    gate.open()
    thread.withLock { $0.take() }?.join()
  }

  /// Makes one pass, in steps.
  /// - Returns: number of frames whose memory was returned.
  @discardableResult
  static func pass(server: PhysicalMemoryServer, limit: Int, isStopped: () -> Bool = { false }) -> Int {
    server.beginIdlePass()
    var count = 0
    while count < limit, !isStopped() {
      let given = server.giveBackIdleFrames()
      if given == 0 { break }
      count += given
    }
    return count
  }
}
