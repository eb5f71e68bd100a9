// Exit times for benchmarks, measured on the host as close to KVM_RUN as possible.

/// One exit, measured from the end of the previous exit's service to the end of its own.
public struct ExitSample: Sendable, Equatable {
  /// What caused the exit.
  public enum Kind: UInt8, Sendable { case fault, call, other }

  /// What caused the exit.
  public let kind: Kind
  /// Number of pages that a fault filled in; 0 for other exits.
  public let pages: UInt16
  /// Time from the end of the previous exit's service to the end of this one's: guest and host together.
  public let nanoseconds: UInt64
  /// The part of `nanoseconds` from the exit to the end of its service.
  public let service: UInt64
}

/// The exits of a task that was launched with `isMeasured`.
public struct ExitSamples: Sendable {
  /// The exits in order.
  public private(set) var samples: [ExitSample] = []
  /// Nanoseconds from the launch to the end of the first call's service; nil: the task has made no call.
  public private(set) var firstCall: UInt64?
  private let start: UInt64
  private var last: UInt64

  /// When each exit's service ended, in nanoseconds of the monotonic clock.
  public var ends: [UInt64] {
    var end = start
    return samples.map { sample in
      end += sample.nanoseconds
      return end
    }
  }

  init(start: UInt64 = 0) {
    self.start = start
    last = start
    if start != 0 { samples.reserveCapacity(1 << 14) }
  }

  @inline(__always)
  mutating func record(_ event: GuestEvent, pages: Int, exit: UInt64, now: UInt64) {
    let kind: ExitSample.Kind =
      switch event {
      case .pageFault: .fault
      case .call: .call
      case .rare: .other
      }
    if kind == .call, firstCall == nil { firstCall = now - start }
    samples.append(
      ExitSample(
        kind: kind, pages: kind == .fault ? UInt16(pages) : 0,
        nanoseconds: now - last, service: now - exit))
    last = now
  }
}
