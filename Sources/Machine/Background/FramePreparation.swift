// The background thread that prepares free frames: it zeroes and populates them, so that faults pay for neither, and
// prepares blocks for superpages, each a huge page of the host. It also ends grace periods that running tasks would
// otherwise prolong (PhysicalMemory/GracePeriod.swift).

internal import GuestMemory
internal import PhysicalMemory
internal import SystemPackage
import Synchronization

/// The background thread that prezeroes frames, prepares blocks and watches grace periods.
final class FramePreparation: Sendable {
  private let gate = WaitGate()
  private let isStopping = Atomic<Bool>(false)
  private let thread = Mutex<HostThread?>(nil)

  /// Nanoseconds between checks of the server's grace periods. Long, because each kick costs a task time, and frames
  /// are freed sooner if any task calls the server meanwhile.
  private static let watchInterval: UInt64 = 5_000_000

  /// Wakes the thread. The server calls it when its stock runs low or a grace period begins.
  func wake() { gate.open() }

  func start(server: PhysicalMemoryServer, memory: PoolMemory, target: Int) throws(Errno) {
    let started = try HostThread { [self] in run(server: server, memory: memory, target: target) }
    thread.withLock { $0 = started }
  }

  /// Ends the thread.
  func stop() {
    isStopping.store(true, ordering: .releasing)
    gate.open()
    thread.withLock { $0.take() }?.join()
  }

  private func run(server: PhysicalMemoryServer, memory: PoolMemory, target: Int) {
    var refusals = 0
    var watchTime: UInt64?
    while true {
      let isWoken = gate.wait(until: watchTime)
      if isStopping.load(ordering: .acquiring) { return }
      let now = monotonicNanoseconds()
      if watchTime.map({ $0 <= now && !server.watchGracePeriods() }) ?? false {
        watchTime = nil
      } else if watchTime.map({ $0 <= now }) ?? isWoken {
        watchTime = now + Self.watchInterval
      }
      guard isWoken else { continue }
      Self.fillStock(server: server, memory: memory, target: target) { isStopping.load(ordering: .acquiring) }
      guard refusals < 8 else { continue }
      do throws(Errno) {
        try Self.readyBlocks(server: server, memory: memory, next: server.nextWantedBlock) {
          isStopping.load(ordering: .acquiring)
        }
        refusals = 0
      } catch {
        // A host short of memory may succeed next time. EINVAL means that the host lacks MADV_COLLAPSE, but also that
        // the block's memory was being given back at that moment.
        if error == .invalidArgument { refusals += 1 }
      }
    }
  }

  /// Prepares blocks for superpages until there are enough.
  /// - Throws: `Errno` of MADV_COLLAPSE.
  static func readyBlocks(
    server: PhysicalMemoryServer, memory: PoolMemory, next: () -> FrameRun?, isStopped: () -> Bool = { false }
  ) throws(Errno) {
    while !isStopped(), let block = next() {
      // If its frames are handed out meanwhile, the work is wasted but harmless.
      try memory.collapse(block)
      while !isStopped(), !server.zeroBlock(block) {}
    }
  }

  /// Fills the stock up to `target` frames, a few at a time.
  static func fillStock(
    server: PhysicalMemoryServer, memory: PoolMemory, target: Int, isStopped: () -> Bool = { false }
  ) {
    while !isStopped() {
      let runs = server.zeroAhead(target: target)
      if runs.isEmpty { return }
      // If frames are handed out meanwhile, their fault pays for populating them; that is harmless.
      for run in runs { try? memory.populate(run) }
    }
  }
}
