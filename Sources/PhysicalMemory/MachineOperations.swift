// The server's interface to the machine. The real implementation writes page tables and zaps frames; tests and the
// simulation use a plain model, so that the whole server runs without /dev/kvm.

internal import CGuestABI
public import GuestMemory

/// A task's index in the server's table, which also names its address space. Reused after the task has ended.
public struct TaskSlot: SlabIndex, Hashable, Sendable, BitwiseCopyable {
  /// The index, from 0.
  public let rawValue: UInt32

  public init(_ rawValue: UInt32) { self.rawValue = rawValue }

  /// The owner of what belongs to no task: the contents of loaded programs.
  static let server = TaskSlot(.max)
}

/// A page-table leaf: the frame and the rights in force.
public struct MappedPage: Equatable, Sendable {
  public let frame: FrameNumber
  public let rights: MappingFlags

  public init(frame: FrameNumber, rights: MappingFlags) {
    self.frame = frame
    self.rights = rights
  }
}

/// PM_PAGE_…: the bits of a page's leaf; empty where there is none.
public struct PageUse: OptionSet, Sendable {
  public let rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }
  public static let present = PageUse(rawValue: UInt8(PM_PAGE_PRESENT))
  public static let accessed = PageUse(rawValue: UInt8(PM_PAGE_ACCESSED))
  public static let dirty = PageUse(rawValue: UInt8(PM_PAGE_DIRTY))
}

/// Superpage counters since the machine was made; `current` is the number of superpages now.
public struct SuperpageCounts: Equatable, Sendable {
  /// Superpages that exist now.
  public var current: Int
  /// Splits by cause: what was done to the page whose change split the superpage.
  public var splits: [SplitCause: Int]
  /// All splits.
  public var split: Int { splits.values.reduce(0, +) }
  /// Flushes of all translations, for superpages and for freed page tables.
  public var flushes: Int

  public init(current: Int = 0, splits: [SplitCause: Int] = [:], flushes: Int = 0) {
    self.current = current
    self.splits = splits
    self.flushes = flushes
  }
}

/// One stay of a task's vCPU inside `KVM_RUN`: from its entry until it is outside and no access is under way for it.
public struct Visit: Equatable, Sendable, BitwiseCopyable {
  /// The task whose vCPU it is.
  public let slot: TaskSlot
  /// Unique among the visits of a slot.
  public let number: UInt64

  public init(slot: TaskSlot, number: UInt64) {
    self.slot = slot
    self.number = number
  }
}

/// Waits for visits to end, without the server's lock.
public protocol Departures: Sendable {
  /// The number of ended visits for which `MachineOperations.hurry` was called.
  var count: UInt64 { get }
  /// Blocks until `count` is larger than the argument.
  func wait(after count: UInt64)
}

/// The machine, as the server uses it. Called with the server's lock held: no function may block or call the server
/// back.
public typealias MachineOperations = TaskEvents & AddressSpaces & PhysicalFrames

/// The clock, and the events of tasks.
public protocol TaskEvents: AnyObject {
  /// Monotonic time in nanoseconds.
  var now: UInt64 { get }
  /// Wakes the task: its reply or message may have come, or a lock may have ended.
  func wake(_ slot: TaskSlot)
  /// Interrupts the task so that its pm_return_pages handler runs and calls `takeReturnRequest`.
  func raiseUpcall(_ slot: TaskSlot)
  /// Stops the task for good because it did not give back `missing` frames in time; `endTask` follows.
  func drop(_ slot: TaskSlot, missing: Int)
  /// Whether the task must end, dropped or for another reason. A call with many steps is then abandoned.
  func mustStop(_ slot: TaskSlot) -> Bool
  /// The task's processor time in nanoseconds. `.max` while the task blocks by choice and has no upcall pending: its
  /// deadline then does not wait for processor time.
  func processorTime(_ slot: TaskSlot) -> UInt64

  // Grace periods (GracePeriod.swift).

  /// The current visit of the task's vCPU; nil when it is outside the machine. Translations looked up in a visit may be
  /// used until it ends, regardless of zaps.
  func visit(_ slot: TaskSlot) -> Visit?
  /// Makes a visit end soon.
  func hurry(_ visit: Visit)
  /// Reports that a grace period has begun: a thread has to call `watchGracePeriods` until it returns false.
  func watchGracePeriods()
}

/// Page tables. They are frames of the server; `takeTable` returns a zeroed frame or nil.
public protocol AddressSpaces: AnyObject {
  /// Prepares the slot's empty address space.
  /// - Returns: the number of tables that were kept for the slot; nil when there is no frame for the root.
  func openSpace(_ slot: TaskSlot, takeTable: () -> FrameNumber?) -> Int?
  /// Closes the space of an ended task, which has no leaf left. May keep the tables for the slot's next task.
  func closeSpace(_ slot: TaskSlot, giveTable: (FrameNumber) -> Void)
  /// Frees a bounded number of the tables kept for slots of ended tasks; at least one if there are any.
  func releaseClosedSpaces(giveTable: (FrameNumber) -> Void)
  /// Links the tables that `page` needs.
  /// - Returns: false when there is no frame for one of them.
  func makeTables(_ slot: TaskSlot, for page: PageNumber, takeTable: () -> FrameNumber?) -> Bool

  // Leaves.

  /// The leaf of a page; nil when it is not present.
  func mappedPage(_ slot: TaskSlot, _ page: PageNumber) -> MappedPage?
  /// The bits of the page's leaf.
  func pageUse(_ slot: TaskSlot, _ page: PageNumber) -> PageUse
  /// The first page in `page ..< end` that has a leaf; nil when there is none. May return a later page without a leaf
  /// to bound the search; the caller continues from there.
  func firstMapped(_ slot: TaskSlot, from page: PageNumber, to end: PageNumber) -> PageNumber?
  /// For checks: calls `body` with each leaf of a space, in order of pages.
  func forEachLeaf(_ slot: TaskSlot, _ body: (PageNumber, MappedPage) -> Void)
  /// The number of pages from `page` on, up to `limit`, that have tables but no leaf. May stop early at the end of a
  /// table.
  func absentRun(_ slot: TaskSlot, from page: PageNumber, limit: Int) -> Int
  /// Writes leaves for adjacent pages, whose tables exist. To replace a leaf, zap its frame first.
  func map(_ slot: TaskSlot, _ page: PageNumber, frames: Span<FrameNumber>, rights: MappingFlags)
  /// Clears a leaf and returns its frame. Takes effect once the frame is zapped. `cause` is counted in
  /// `superpageCounts`.
  func unmap(_ slot: TaskSlot, _ page: PageNumber, _ cause: SplitCause) -> FrameNumber
  /// Removes the write permission from a leaf. Takes effect once the frame is zapped.
  func writeProtect(_ slot: TaskSlot, _ page: PageNumber)
  /// Returns when all writes that the machine itself makes for tasks through earlier leaves are in memory.
  func settleWrites()
  /// Marks a leaf that a fault found valid; any change of the leaf clears the mark.
  /// - Returns: whether the leaf was marked already.
  func suspect(_ slot: TaskSlot, _ page: PageNumber) -> Bool

  // Superpages: 512 leaves for adjacent frames, the first a multiple of 512, that the machine holds as one translation.
  // The leaves keep working as such: changing one splits the superpage inside the machine. `page` is the first page of
  // an aligned region of 512.

  /// Superpage counters since the machine was made.
  var superpageCounts: SuperpageCounts { get }
  /// The superpage's translation of its first page; nil when the region is not a superpage.
  func superpage(_ slot: TaskSlot, _ page: PageNumber) -> MappedPage?
  /// False while the region backs off after a split.
  func mayPromote(_ slot: TaskSlot, _ page: PageNumber) -> Bool
  /// Whether `mayPromote` holds and the region has no leaf and no table in use.
  func mayMapSuperpage(_ slot: TaskSlot, _ page: PageNumber) -> Bool
  /// Maps a region with a superpage, for the frames from `frame` on. `mayMapSuperpage` must hold.
  /// - Returns: false, with nothing changed, when there is no frame for a table or the host is short of memory.
  func mapSuperpage(
    _ slot: TaskSlot, _ page: PageNumber, _ frame: FrameNumber, rights: MappingFlags, takeTable: () -> FrameNumber?
  ) -> Bool
  /// Promotes regions for which `mayPromote` holds, where the leaves permit it. Takes about a millisecond for all of
  /// them.
  /// - Returns: the number of superpages made.
  func promote(_ slot: TaskSlot, _ pages: Span<PageNumber>) -> Int
  /// Makes the leaf of the page at fault visible to the task. After a split the machine may leave the region detached:
  /// reattaching needs a flush of all translations, and waiting for a fault shares one flush among many regions, or
  /// saves it.
  /// - Returns: whether the region was detached.
  @discardableResult
  func attach(_ slot: TaskSlot, _ page: PageNumber) -> Bool
}

/// The frames' memory, and the translations that lead to it.
public protocol PhysicalFrames: AnyObject {
  /// Reports that the stock of zeroed frames is below half: a thread should call `zeroAhead`.
  func wantZeroedFrames()
  /// Flushes translations: after the return, no access through an earlier translation reaches the frames.
  func zap(_ run: FrameRun)
  /// Zeroes frames through the server's window.
  func zero(_ run: FrameRun)
  /// Gives the frames' memory back to the host; they read zero from then on. No task may have them mapped.
  func discard(_ run: FrameRun)
  /// Copies one frame of 4,096 bytes.
  func copy(from source: FrameNumber, to destination: FrameNumber)
  /// Reads bytes of a frame.
  func read(_ frame: FrameNumber, at offset: Int, into buffer: inout MutableSpan<UInt8>)
  /// Writes bytes of a frame.
  func write(_ frame: FrameNumber, at offset: Int, _ bytes: Span<UInt8>)
}

extension AddressSpaces {
  /// Walks the leaves with `firstMapped`.
  public func forEachLeaf(_ slot: TaskSlot, _ body: (PageNumber, MappedPage) -> Void) {
    let end = PageNumber(containing: PM_USER_END)
    var page = PageNumber(0)
    while let mapped = firstMapped(slot, from: page, to: end) {
      page = mapped
      // The search may stop early at a page without a leaf.
      guard let leaf = mappedPage(slot, mapped) else { continue }
      body(mapped, leaf)
      page = mapped.advanced(by: 1)
    }
  }
}
