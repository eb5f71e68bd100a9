// All that the server does to the machine. The real one writes page tables and zaps frames; tests and the
// simulation put a plain model in its place, so that the whole server runs without /dev/kvm.

internal import CGuestABI
public import GuestMemory

/// A task's place in the server's table, and with it its address space; reused when the task has ended.
public struct TaskSlot: SlabIndex, Hashable, Sendable, BitwiseCopyable {
  public let rawValue: UInt32

  public init(_ rawValue: UInt32) { self.rawValue = rawValue }

  /// Owns what belongs to no task: the contents of loaded programs.
  static let server = TaskSlot(.max)
}

/// A page-table leaf as the server sees it.
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

/// What became of superpages, since the machine was made; `current`: how many there are.
public struct SuperpageCounts: Equatable, Sendable {
  public var current: Int
  /// Those whose regions were mapped by single pages again, by what was done to the first page of each that changed.
  public var splits: [SplitCause: Int]
  public var split: Int { splits.values.reduce(0, +) }
  /// Flushes of all translations, for superpages and for page tables that became frames again.
  public var flushes: Int

  public init(current: Int = 0, splits: [SplitCause: Int] = [:], flushes: Int = 0) {
    self.current = current
    self.splits = splits
    self.flushes = flushes
  }
}

/// One stay of a task's vCPU inside the machine: from its entry to when it is outside again, and nothing is under way for it.
public struct Visit: Equatable, Sendable, BitwiseCopyable {
  public let slot: TaskSlot
  /// Another one for each visit of a slot.
  public let number: UInt64

  public init(slot: TaskSlot, number: UInt64) {
    self.slot = slot
    self.number = number
  }
}

/// Where a thread waits for the ends of visits, without the server's lock.
public protocol Departures: Sendable {
  /// How many visits have ended that `MachineOperations.hurry` was called for.
  var count: UInt64 { get }
  /// Returns when there have been more.
  func wait(after count: UInt64)
}

/// All of it: called with the server's lock held; no function may block or call the server back.
public typealias MachineOperations = TaskEvents & AddressSpaces & PhysicalFrames

/// The clock, and what happens to tasks.
public protocol TaskEvents: AnyObject {
  /// Nanoseconds of a clock that never goes back.
  var now: UInt64 { get }
  /// What the task waits for may have come: an answer, a message, the end of a lock.
  func wake(_ slot: TaskSlot)
  /// Interrupts the task wherever it is: its pm_return_pages handler shall ask `takeReturnRequest`.
  func raiseUpcall(_ slot: TaskSlot)
  /// Stops the task for good, which has not given back `missing` frames in time; `endTask` follows.
  func drop(_ slot: TaskSlot, missing: Int)
  /// Whether the task is to end, dropped or for another reason: a call of its with many steps is given up then.
  func mustStop(_ slot: TaskSlot) -> Bool
  /// Nanoseconds that the task has had its processor for. `.max` while it waits of its own accord and no upcall is on its
  /// way to it: then time is no excuse.
  func processorTime(_ slot: TaskSlot) -> UInt64

  // Grace periods (GracePeriod.swift).

  /// The visit that the task's vCPU is on; nil: it is outside. The machine may use a translation that it looked up in a
  /// visit for as long as the visit lasts, whatever is zapped.
  func visit(_ slot: TaskSlot) -> Visit?
  /// Makes the visit end soon.
  func hurry(_ visit: Visit)
  /// A grace period has begun: somebody should call `endGracePeriods` until there is none.
  func watchGracePeriods()
}

/// Page tables. They are made of frames that the server gives; `takeTable` returns a zeroed one or nil.
public protocol AddressSpaces: AnyObject {
  /// Readies the slot's empty address space.
  /// - Returns: how many tables were kept for it; nil: there is no frame for its root.
  func openSpace(_ slot: TaskSlot, takeTable: () -> FrameNumber?) -> Int?
  /// The task has ended and no leaf is left. The tables may be kept for the slot's next task.
  func closeSpace(_ slot: TaskSlot, giveTable: (FrameNumber) -> Void)
  /// Gives back tables kept for slots whose task has ended, a bounded number: some, if there are any.
  func releaseClosedSpaces(giveTable: (FrameNumber) -> Void)
  /// Links the tables that `page` needs. False: no frame for one of them.
  func makeTables(_ slot: TaskSlot, for page: PageNumber, takeTable: () -> FrameNumber?) -> Bool

  // Leaves.

  func mappedPage(_ slot: TaskSlot, _ page: PageNumber) -> MappedPage?
  /// The bits of the page's leaf.
  func pageUse(_ slot: TaskSlot, _ page: PageNumber) -> PageUse
  /// The first page in `page ..< end` with a leaf; nil: there is none. May stop after a bounded search at a later page
  /// without a leaf, from where the caller goes on.
  func firstMapped(_ slot: TaskSlot, from page: PageNumber, to end: PageNumber) -> PageNumber?
  /// For checks: calls `body` with each leaf of a space, in order.
  func forEachLeaf(_ slot: TaskSlot, _ body: (PageNumber, MappedPage) -> Void)
  /// How many pages from `page` on have tables and no leaf, up to `limit`; may stop early at a table's end.
  func absentRun(_ slot: TaskSlot, from page: PageNumber, limit: Int) -> Int
  /// Writes leaves for adjacent pages; their tables exist. Replacing a leaf needs a zap of its frame before.
  func map(_ slot: TaskSlot, _ page: PageNumber, frames: Span<FrameNumber>, rights: MappingFlags)
  /// Empties a leaf and gives its frame; it holds once the frame is zapped. `cause` is for `superpageCounts`.
  func unmap(_ slot: TaskSlot, _ page: PageNumber, _ cause: SplitCause) -> FrameNumber
  /// Takes the right to write from a leaf; it holds once the frame is zapped.
  func writeProtect(_ slot: TaskSlot, _ page: PageNumber)
  /// Returns when what the machine was writing for tasks, through leaves as they were before, is in memory.
  func settleWrites()
  /// Notes in a leaf that a fault found it as it should be.
  /// - Returns: whether that had been noted, and the leaf has not changed since.
  func suspect(_ slot: TaskSlot, _ page: PageNumber) -> Bool

  // Superpages: 512 leaves, of adjacent frames from a multiple of 512 on, which the machine holds as one translation. They
  // stay leaves like others: whatever changes one of them splits the superpage, inside the machine. `page` is the first
  // page of an aligned region of 512.

  var superpageCounts: SuperpageCounts { get }
  /// What the superpage says of its first page; nil: the region is none.
  func superpage(_ slot: TaskSlot, _ page: PageNumber) -> MappedPage?
  /// The region was not a superpage in vain lately.
  func mayPromote(_ slot: TaskSlot, _ page: PageNumber) -> Bool
  /// Nor has it a leaf, or a table that is in use.
  func mayMapSuperpage(_ slot: TaskSlot, _ page: PageNumber) -> Bool
  /// Writes the leaves of a region for which `mayMapSuperpage`, for the frames from `frame` on.
  /// - Returns: false, and nothing has changed: there is no frame for a table, or the host is short of memory.
  func mapSuperpage(
    _ slot: TaskSlot, _ page: PageNumber, _ frame: FrameNumber, rights: MappingFlags, takeTable: () -> FrameNumber?
  ) -> Bool
  /// Makes superpages of regions for which `mayPromote`, where the leaves permit it; about a millisecond for all of them.
  /// - Returns: how many.
  func promote(_ slot: TaskSlot, _ pages: Span<PageNumber>) -> Int
  /// Lets the task see the leaf of the page at fault: since a superpage was split, the machine may hold back the region. That
  /// waits for a fault so that what it costs, a flush of all translations, is paid once for many regions, or never.
  /// - Returns: whether the region was held back.
  @discardableResult
  func attach(_ slot: TaskSlot, _ page: PageNumber) -> Bool
}

/// The frames' memory, and the translations that lead to it.
public protocol PhysicalFrames: AnyObject {
  /// The stock of zeroed frames is below half: somebody should call `zeroAhead`.
  func wantZeroedFrames()
  /// No access through a translation made before the call lands in the frames after it.
  func zap(_ run: FrameRun)
  func zero(_ run: FrameRun)
  /// Gives the frames' memory back to the host; they read zero from then on. Nobody has them mapped.
  func discard(_ run: FrameRun)
  func copy(from source: FrameNumber, to destination: FrameNumber)
  func read(_ frame: FrameNumber, at offset: Int, into buffer: inout MutableSpan<UInt8>)
  func write(_ frame: FrameNumber, at offset: Int, _ bytes: Span<UInt8>)
}

extension AddressSpaces {
  public func forEachLeaf(_ slot: TaskSlot, _ body: (PageNumber, MappedPage) -> Void) {
    let end = PageNumber(containing: PM_USER_END)
    var page = PageNumber(0)
    while let mapped = firstMapped(slot, from: page, to: end) {
      page = mapped
      // The search may stop where there is no leaf, to be gone on with.
      guard let leaf = mappedPage(slot, mapped) else { continue }
      body(mapped, leaf)
      page = mapped.advanced(by: 1)
    }
  }
}
