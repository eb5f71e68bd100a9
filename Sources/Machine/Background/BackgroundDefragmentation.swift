// The background thread that defragments the pool: rarely when it gains nothing, and in short steps.

internal import GuestMemory
internal import PhysicalMemory
internal import SystemPackage
import Synchronization

/// When the pool is defragmented.
public enum DefragmentationMode: Sendable {
  /// When free memory is fragmented; checked about once a second.
  case background
  /// Continuously, whether it helps or not; for experiments.
  case continuous
  /// Not at all.
  case never
}

/// The background thread that defragments the pool and promotes regions to superpages.
final class BackgroundDefragmentation: Sendable {
  /// Nanoseconds between checks; doubled after each pass that moved nothing.
  private static let interval: UInt64 = 1_000_000_000
  private static let longestInterval: UInt64 = 64_000_000_000
  /// Nanoseconds between steps, in which other threads can take the server's lock. Each zap costs every running task an
  /// exit of about 30 µs: with 64 frames every 4 ms, that is less than 1 % of its time.
  private static let pause: UInt64 = 4_000_000
  private static let shortPause: UInt64 = 50_000
  /// A pass is worthwhile if the unusable free space index for superpages exceeds this, and enough frames are free for
  /// several.
  private static let tolerated = 0.25
  private static let superpageOrder = 9
  private static let leastFree = 4 << superpageOrder

  /// The most superpages made in one run.
  private static let superpagesInOneGo = 8

  private let gate = WaitGate()
  private let isStopping = Atomic<Bool>(false)
  private let thread = Mutex<HostThread?>(nil)

  /// - Parameter promote: makes a superpage of a region whose frames are in order; nil: no superpages.
  func start(
    server: PhysicalMemoryServer, mode: DefragmentationMode, promote: (@Sendable (TaskSlot, PageNumber) -> Bool)?
  ) throws(Errno) {
    let started = try HostThread { [self] in run(server, mode, promote) }
    thread.withLock { $0 = started }
  }

  func stop() {
    isStopping.store(true, ordering: .releasing)
    gate.open()
    thread.withLock { $0.take() }?.join()
  }

  private func run(
    _ server: PhysicalMemoryServer, _ mode: DefragmentationMode, _ promote: ((TaskSlot, PageNumber) -> Bool)?
  ) {
    var interval = Self.interval
    while !isStopping.load(ordering: .acquiring) {
      if mode == .background {
        gate.wait(until: monotonicNanoseconds() + interval)
        if let promote { gather(server, promote) }
        guard Self.isWorthwhile(server.fragmentation) else { continue }
      }
      let moved = pass(server, pause: mode == .background ? Self.pause : Self.shortPause)
      interval = moved > 0 ? Self.interval : min(2 * interval, Self.longestInterval)
      if mode == .continuous, moved == 0 { gate.wait(until: monotonicNanoseconds() + 1_000_000) }
    }
  }

  /// Gathers the frames of regions and promotes the regions to superpages.
  private func gather(_ server: PhysicalMemoryServer, _ promote: (TaskSlot, PageNumber) -> Bool) {
    var cursor = GatheringCursor()
    var left = Self.superpagesInOneGo
    while left > 0, !isStopping.load(ordering: .acquiring), let candidate = server.findCandidate(&cursor) {
      // Regions already in order are skipped: collapsing memory in use into huge pages corrupted the host kernel under
      // a translated KVM (docs/internals/notes/backends.md).
      guard case .scattered(var gathering) = candidate else { continue }
      left -= 1
      var progress = server.continueGathering(&gathering)
      while progress == .more, !isStopping.load(ordering: .acquiring) {
        gate.wait(until: monotonicNanoseconds() + Self.pause)
        progress = server.continueGathering(&gathering)
      }
      if progress == .done { _ = promote(gathering.task, gathering.page) }
    }
  }

  private static func isWorthwhile(_ fragmentation: Fragmentation) -> Bool {
    fragmentation.freeCount >= leastFree && fragmentation.unusable(order: superpageOrder) > tolerated
  }

  private func pass(_ server: PhysicalMemoryServer, pause: UInt64) -> Int {
    var pass = DefragmentationPass()
    while !isStopping.load(ordering: .acquiring) {
      let before = pass.moved
      guard server.continueDefragmentation(&pass) else { break }
      // A step that only searched has cost no other thread anything.
      if pass.moved > before { gate.wait(until: monotonicNanoseconds() + pause) }
    }
    return pass.moved
  }
}
