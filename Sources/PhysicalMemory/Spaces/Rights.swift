// The rights of a mapping, and the rights an access needs.

internal import CGuestABI

/// The rights and options of a mapping. The values are those of PM_MAP_… in the guest interface.
public struct MappingFlags: OptionSet, Hashable, Sendable, BitwiseCopyable {
  /// PM_MAP_… bits.
  public let rawValue: UInt32

  /// - Parameter rawValue: PM_MAP_… bits.
  public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// Permits reads.
  public static let read = MappingFlags(rawValue: UInt32(PM_MAP_READ))
  /// Permits writes.
  public static let write = MappingFlags(rawValue: UInt32(PM_MAP_WRITE))
  /// Permits instruction fetches.
  public static let execute = MappingFlags(rawValue: UInt32(PM_MAP_EXECUTE))
  /// Breaks sharing when mapped, so that the page is writable (R26).
  public static let forceWrite = MappingFlags(rawValue: UInt32(PM_MAP_FORCE_WRITE))
  /// Fills in pages at their first access (R25).
  public static let lazy = MappingFlags(rawValue: UInt32(PM_MAP_LAZY))

  static let all: MappingFlags = [.read, .write, .execute, .forceWrite, .lazy]
  static let rights: MappingFlags = [.read, .write, .execute]

  /// The rights alone, including those that x86-64 paging implies.
  public var effectiveRights: MappingFlags {
    var rights = intersection(.rights)
    if contains(.forceWrite) { rights.insert(.write) }
    if !rights.isEmpty { rights.insert(.read) }
    return rights
  }
}

/// The kind of a memory access, as the processor reports it.
public enum Access: Sendable {
  case read, write, execute

  var right: MappingFlags {
    switch self {
    case .read: .read
    case .write: .write
    case .execute: .execute
    }
  }
}
