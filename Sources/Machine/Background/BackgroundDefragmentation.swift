// The background thread that defragments the pool: seldom where that gains nothing, and never for long at a time.

internal import GuestMemory
internal import PhysicalMemory
internal import SystemPackage
import Synchronization

/// When contents are moved together.
public enum DefragmentationMode: Sendable {
  /// When the free frames lie badly, about once a second.
  case background
  /// All the time, whether it gains anything or not: for experiments.
  case continuous
  case never
}

final class BackgroundDefragmentation: Sendable {
  /// Nanoseconds from one look to the next; twice as long after each pass that moved nothing.
  private static let interval: UInt64 = 1_000_000_000
  private static let longestInterval: UInt64 = 64_000_000_000
  /// Nanoseconds between steps, in which others have the server. Each zap costs every running task an exit of some 30 µs:
  /// with 64 frames in 4 ms, that is less than 1 % of its time.
  private static let pause: UInt64 = 4_000_000
  private static let shortPause: UInt64 = 50_000
  /// A pass is worth its while when more than this share of the free frames is of no use for a superpage, and there are
  /// enough of them for some.
  private static let tolerated = 0.25
  private static let superpageOrder = 9
  private static let leastFree = 4 << superpageOrder

  /// Superpages made in one go.
  private static let superpagesInOneGo = 8

  private let gate = WaitGate()
  private let isStopping = Atomic<Bool>(false)
  private let thread = Mutex<HostThread?>(nil)

  /// - Parameter promote: makes a superpage of a region whose frames are in order; nil: there are to be none.
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

  /// Gathers regions for superpages.
  private func gather(_ server: PhysicalMemoryServer, _ promote: (TaskSlot, PageNumber) -> Bool) {
    var cursor = GatheringCursor()
    var left = Self.superpagesInOneGo
    while left > 0, !isStopping.load(ordering: .acquiring), let candidate = server.findCandidate(&cursor) {
      // Those in order are left as they are: making huge pages of memory that tasks use corrupted the host's kernel under a
      // translated KVM (docs/internals/notes/backends.md).
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
      // Looking costs nobody but this thread.
      if pass.moved > before { gate.wait(until: monotonicNanoseconds() + pause) }
    }
    return pass.moved
  }
}
