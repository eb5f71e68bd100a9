// How long exits took, for the benchmarks: measured on the host, as close to KVM_RUN as can be.

/// One exit, from the end of the service before it to the end of its own.
public struct ExitSample: Sendable, Equatable {
  public enum Kind: UInt8, Sendable { case fault, call, other }

  public let kind: Kind
  /// Filled in by a fault.
  public let pages: UInt16
  public let nanoseconds: UInt64
  /// Of these, from the exit to the end of its service.
  public let service: UInt64
}

public struct ExitSamples: Sendable {
  public private(set) var samples: [ExitSample] = []
  /// From the launch to the end of the first call's service.
  public private(set) var firstCall: UInt64?
  private let start: UInt64
  private var last: UInt64

  /// When the service of each exit ended: nanoseconds of the monotonic clock.
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
