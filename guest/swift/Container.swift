// Containers (R15-R18, R20, R23, R38) and mapping their frames (R25-R27).

import CPhysmem

/// The rights of a mapping.
public struct Rights: OptionSet, Sendable {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }

  public static let read = Rights(rawValue: UInt32(PM_MAP_READ))
  public static let write = Rights(rawValue: UInt32(PM_MAP_WRITE))
  public static let execute = Rights(rawValue: UInt32(PM_MAP_EXECUTE))
  /// Writing, after a private copy if the content is shared (R26).
  public static let forceWrite = Rights(rawValue: UInt32(PM_MAP_FORCE_WRITE))
}

/// Options of an allocation (R18).
public struct AllocationOptions: OptionSet, Sendable {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// Ids in use get fresh frames.
  public static let squash = AllocationOptions(rawValue: UInt32(PM_ALLOC_SQUASH))
  /// Frames beyond the guarantee, if necessary.
  public static let extra = AllocationOptions(rawValue: UInt32(PM_ALLOC_EXTRA))
}

/// A name space of frame ids, each naming a virtual frame. The value owns the container and destroys it at its end.
public struct Container: ~Copyable, FrameSpace {
  /// The handle in the C interface.
  public let handle: UInt32
  private let isOwned: Bool

  /// Creates an empty container.
  public init() throws(PMError) {
    var handle: pm_container_t = 0
    // SAFETY: the pointer is used within the call only.
    try PMError.check(unsafe pm_container_create(&handle))
    self.init(handle: handle, isOwned: true)
  }

  /// Creates a container with `count` fresh frames, numbered from 0, and a weak capability to it (R23).
  /// - Parameter remote: as for `share`.
  public init(
    count: UInt32, sharedAs weak: inout WeakContainer?, with remote: UInt32 = 0
  ) throws(PMError) {
    var handle: pm_container_t = 0
    var shared: pm_container_t = 0
    try PMError.check(unsafe pm_container_create_with(&handle, count, remote, &shared))
    weak = WeakContainer(handle: shared)
    self.init(handle: handle, isOwned: true)
  }

  /// Creates a container whose frames, numbered from 0, are logical copies of these (R23).
  public init(
    copying frames: Range<UInt32>, of source: borrowing some FrameSpace & ~Copyable
  ) throws(PMError) {
    var handle: pm_container_t = 0
    let count = UInt32(frames.count)
    try PMError.check(unsafe pm_container_create_from(&handle, source.handle, frames.lowerBound, count, 0, nil))
    self.init(handle: handle, isOwned: true)
  }

  private init(handle: UInt32, isOwned: Bool) {
    self.handle = handle
    self.isOwned = isOwned
  }

  /// The container that holds the task's image and stack. It lasts as long as the task.
  public static var initial: Container { Container(handle: 2, isOwned: false) }

  deinit {
    if isOwned { _ = pm_container_destroy(handle) }
  }

  /// Allocates fresh frames, which read as zero, for the ids.
  public func allocate(_ frames: Range<UInt32>, options: AllocationOptions = []) throws(PMError) {
    var count = UInt32(frames.count)
    // SAFETY: the pointer is used within the call only; the same holds below.
    try PMError.check(unsafe pm_container_allocate(handle, frames.lowerBound, &count, options.rawValue))
  }

  /// Allocates as many ids as possible, from the first on.
  /// - Returns: their number, and the error that stopped it.
  public func allocatePart(
    of frames: Range<UInt32>,
    options: AllocationOptions = []
  ) -> (count: UInt32, error: PMError?) {
    var count = UInt32(frames.count)
    let flags = options.rawValue | UInt32(PM_ALLOC_PARTIAL)
    let result = unsafe pm_container_allocate(handle, frames.lowerBound, &count, flags)
    return (count, PMError.of(result))
  }

  /// Frees the frames; pages mapped to them fault from then on. Unused ids are an error unless `ignoringUnused`.
  public func deallocate(_ frames: Range<UInt32>, ignoringUnused: Bool = false) throws(PMError) {
    var count = UInt32(frames.count)
    let flags = ignoringUnused ? UInt32(PM_DEALLOC_SQUASH) : 0
    try PMError.check(unsafe pm_container_deallocate(handle, frames.lowerBound, &count, flags))
  }

  /// Releases frames: they are no longer charged, and can be recovered until the server reuses them (R31).
  public func releasePages(_ frames: [UInt32]) throws(PMError) {
    let result = unsafe frames.withUnsafeBufferPointer {
      unsafe pm_release_pages(handle, $0.baseAddress, UInt32($0.count))
    }
    try PMError.check(result)
  }

  /// Recovers released frames with their contents, all or none (R31).
  public func recoverPages(_ frames: [UInt32]) throws(CopyError) {
    let handle = handle
    try Self.check { frameError in
      unsafe frames.withUnsafeBufferPointer {
        unsafe pm_recover_pages(handle, $0.baseAddress, UInt32($0.count), &frameError)
      }
    }
  }

  /// Whether each frame is not in use and has nothing to recover (R31).
  public func expiredPages(_ frames: [UInt32]) throws(PMError) -> [Bool] {
    var expired = [UInt8](repeating: 0, count: frames.count)
    let result = unsafe frames.withUnsafeBufferPointer { ids in
      unsafe expired.withUnsafeMutableBufferPointer {
        unsafe pm_expired_pages(handle, ids.baseAddress, UInt32(ids.count), $0.baseAddress)
      }
    }
    try PMError.check(result)
    return expired.map { $0 != 0 }
  }

  /// Makes each of the frames drop a content that it shares: it reads as zero then (R38).
  public func releaseData(_ frames: [UInt32]) throws(PMError) {
    let result = unsafe frames.withUnsafeBufferPointer {
      unsafe pm_release_data(handle, $0.baseAddress, UInt32($0.count))
    }
    try PMError.check(result)
  }

  /// Makes a weak capability, to be sent to other tasks (R20).
  /// - Parameter remote: who may use it: 0 for every holder, or a handle of a task or of an endpoint.
  public func share(with remote: UInt32 = 0) throws(PMError) -> WeakContainer {
    var weak: pm_container_t = 0
    try PMError.check(unsafe pm_container_share(handle, remote, &weak))
    return WeakContainer(handle: weak)
  }

  /// Revokes all weak capabilities, and removes the mappings made through them (R21).
  public func revoke() throws(PMError) { try PMError.check(pm_container_revoke(handle)) }
}

/// A page of the task's address space (R27).
public struct Mapping {
  /// A handle of the task, 0 if it holds none.
  public let container: UInt32
  public let frame: UInt32
  /// The rights in force now; an access that needs another one faults.
  public let rights: Rights
  /// The rights that the mapping was made with.
  public let requested: Rights
  /// The frame's physical address; nil while it has none.
  public let physical: UInt64?

  /// Reads the mapping at the page of `address`; throws `noEntry` if there is none.
  public init(at address: UInt) throws(PMError) {
    var mapping = pm_mapping()
    // SAFETY: the server does not access the page.
    try PMError.check(unsafe pm_get_mapping(UnsafeRawPointer(bitPattern: address), &mapping))
    container = mapping.container
    frame = mapping.frame
    rights = Rights(rawValue: mapping.rights)
    requested = Rights(rawValue: mapping.requested & ~UInt32(PM_MAP_LAZY))
    physical = mapping.physical == 0 ? nil : mapping.physical
  }

  /// Removes the mappings of `count` pages from `address` on.
  public static func remove(at address: UInt, count: UInt32) throws(PMError) {
    // SAFETY: the server checks the address; the program no longer uses the pages.
    try PMError.check(unsafe pm_unmap(UnsafeMutableRawPointer(bitPattern: address), count))
  }
}

/// What a page's leaf says (R37); empty where there is no leaf, and the next access faults.
public struct PageUse: OptionSet, Sendable {
  public let rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }

  public static let present = PageUse(rawValue: UInt8(PM_PAGE_PRESENT))
  public static let accessed = PageUse(rawValue: UInt8(PM_PAGE_ACCESSED))
  public static let dirty = PageUse(rawValue: UInt8(PM_PAGE_DIRTY))

  /// - Returns: one for each of `count` pages from `address` on.
  public static func sample(at address: UInt, count: UInt32) throws(PMError) -> [PageUse] {
    var bits = [UInt8](repeating: 0, count: Int(count))
    let error = unsafe bits.withUnsafeMutableBufferPointer { buffer in
      // SAFETY: the server stores a byte for each page, and does not access the pages.
      unsafe pm_sample(UnsafeRawPointer(bitPattern: address), count, 0, buffer.baseAddress)
    }
    try PMError.check(error)
    return bits.map { PageUse(rawValue: $0) }
  }
}
