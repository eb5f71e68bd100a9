// What a mapping permits, and what an access needs.

internal import CGuestABI

/// The rights and wishes of a mapping; the values are those of PM_MAP_… in the guest interface.
public struct MappingFlags: OptionSet, Hashable, Sendable, BitwiseCopyable {
  public let rawValue: UInt32

  public init(rawValue: UInt32) { self.rawValue = rawValue }

  public static let read = MappingFlags(rawValue: UInt32(PM_MAP_READ))
  public static let write = MappingFlags(rawValue: UInt32(PM_MAP_WRITE))
  public static let execute = MappingFlags(rawValue: UInt32(PM_MAP_EXECUTE))
  /// Break sharing so that the page becomes writable (R26).
  public static let forceWrite = MappingFlags(rawValue: UInt32(PM_MAP_FORCE_WRITE))
  /// Fill in on first access (R25).
  public static let lazy = MappingFlags(rawValue: UInt32(PM_MAP_LAZY))

  static let all: MappingFlags = [.read, .write, .execute, .forceWrite, .lazy]
  static let rights: MappingFlags = [.read, .write, .execute]

  /// The rights alone, with those that x86-64 paging implies.
  public var effectiveRights: MappingFlags {
    var rights = intersection(.rights)
    if contains(.forceWrite) { rights.insert(.write) }
    if !rights.isEmpty { rights.insert(.read) }
    return rights
  }
}

/// One access to memory, as the processor reports it.
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
