// The background thread that gives the memory of frames which stay free back to the host, and no more of it at a time
// than a limit: whoever needs the frames soon pays for their memory again.

internal import PhysicalMemory
internal import SystemPackage
import Synchronization

final class IdleMemory: Sendable {
  /// Nanoseconds from one pass to the next: frames stay free for one to two of these before their memory goes.
  private static let interval: UInt64 = 1_000_000_000

  private let gate = WaitGate()
  private let isStopping = Atomic<Bool>(false)
  private let thread = Mutex<HostThread?>(nil)

  /// - Parameter limit: frames in one pass.
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

  /// One pass, in steps.
  /// - Returns: how many frames it gave back.
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
