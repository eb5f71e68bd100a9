// The background thread that readies free frames: clears them, and gives them host page-table entries, so that a
// fault pays for neither; and blocks of them for superpages, each a huge page of the host. It also sees to it that frames do
// not wait for ever for tasks that run on and on (PhysicalMemory/GracePeriod.swift).

internal import GuestMemory
internal import PhysicalMemory
internal import SystemPackage
import Synchronization

final class FramePreparation: Sendable {
  private let gate = WaitGate()
  private let isStopping = Atomic<Bool>(false)
  private let thread = Mutex<HostThread?>(nil)

  /// Nanoseconds from when the server asks to have its grace periods watched, or was told last, to the next look. Long, since
  /// a task pays for each kick, and frames are free earlier where somebody calls the server meanwhile.
  private static let watchInterval: UInt64 = 5_000_000

  /// Called by the server when its stock runs low, or a grace period begins.
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
        // Short of memory, the host may have some the next time. Without MADV_COLLAPSE there are no superpages at all; but it
        // refuses a block as well whose memory is given back at that moment.
        if error == .invalidArgument { refusals += 1 }
      }
    }
  }

  /// Readies blocks for superpages until there are enough.
  static func readyBlocks(
    server: PhysicalMemoryServer, memory: PoolMemory, next: () -> FrameRun?, isStopped: () -> Bool = { false }
  ) throws(Errno) {
    while !isStopped(), let block = next() {
      // Its frames may be handed out before this is done: then nobody has gained anything, and nothing else happens.
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
      // Frames may be handed out before this is done: then their fault pays for it, and nothing else happens.
      for run in runs { try? memory.populate(run) }
    }
  }
}
