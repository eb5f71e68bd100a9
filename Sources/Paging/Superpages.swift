// Superpages: a directory entry that is itself a leaf of 2 MiB, for 512 adjacent frames from a multiple of 512 on.
//
// The region's leaf table stays, full, and is what everybody above this sees: 512 leaves. While the directory entry does
// not name it, it is kept aside.
//
//  A region is
//  1. bare: the entry is empty and has always been.
//  2. tabled: the entry names the leaf table.
//  3. a superpage: the entry is a leaf; the table behind it is full and says the same.
//  4. detached: the entry is not present; the table behind it may say anything, and the processor sees none of it.
//
//   bare ──▶ tabled, superpage       nothing ever saw the entry otherwise
//   tabled, superpage ──▶ detached   at any time; the leaves that change are zapped, as always
//   detached ──▶ tabled, superpage   after a flush of all translations since then
//
// The flush is for KVM's shadow of the directory. A shadow entry that is linked to the shadow of a table stays so when
// frames are zapped, and KVM takes it for what the entry names next: the next superpage's, or the next table's. On kernels
// without the fixes of 2026 that harms the host's kernel (docs/internals/decisions/0012). With nested paging nothing is lost by it.
// Between detaching and attaching no walk gets past the entry, so nothing new is linked to it.

internal import CKVM
public import GuestMemory

/// What the trees of one machine have in common. Used with the server's lock held.
public final class TranslationHistory {
  /// Flushes of all translations so far.
  public var flushes: UInt64 = 0
  /// Superpages whose regions have leaf tables again.
  public internal(set) var splits: [SplitCause: Int] = [:]
  /// Superpages there are.
  public internal(set) var superpages = 0

  public init() {}
}

/// A leaf table that its directory entry does not name.
struct AsideTable {
  let frame: FrameNumber
  /// Of a detached region: the flushes there had been by then.
  var detachedAt: UInt64
  /// It was a superpage before.
  var split: SplitCause?
}

/// How a region fared that was a superpage, and cost a flush to be used otherwise. It is no superpage again at once: not for
/// a second after the first time, for two after the second, and so on.
struct SplitHistory {
  private var count: UInt64 = 0
  private var time: UInt64 = 0

  mutating func note(_ now: UInt64) {
    count += 1
    time = now
  }

  func permits(_ now: UInt64) -> Bool { now >= time + 1_000_000_000 << min(count - 1, 10) }
}

extension PageTables {
  /// The directory entry of a page's region; empty where there is no directory.
  private func directoryEntry(_ page: PageNumber) -> PageTableEntry {
    guard let slot = unsafe directorySlot(page) else { return .empty }
    return unsafe PageTableEntry(rawValue: ckvm_load(slot))
  }

  private static func region(_ page: PageNumber) -> UInt64 { page.rawValue >> 9 }
  private static func firstPage(_ page: PageNumber) -> PageNumber { PageNumber(page.rawValue & ~511) }

  /// The entry of the superpage that a page is in.
  public func superpage(_ page: PageNumber) -> PageTableEntry? {
    let entry = directoryEntry(page)
    return entry.isSuperpage ? entry : nil
  }

  /// The region has no leaf, and no directory entry that would have to be changed.
  public mutating func isFreeForSuperpage(_ page: PageNumber) -> Bool {
    let entry = directoryEntry(page)
    if !entry.hasTable { return true }
    return !entry.isPresent && absentRun(from: Self.firstPage(page), limit: Self.pagesPerTable) == Self.pagesPerTable
  }

  /// Whether something was changed behind a detached entry or before it: the region must be attached to be seen.
  @inline(__always)
  public func isDetached(_ page: PageNumber) -> Bool {
    if aside.isEmpty { return false }
    let entry = directoryEntry(page)
    return entry.hasTable && !entry.isPresent
  }

  /// Whether all translations must be flushed before a detached region is attached.
  public func needsFlush(_ page: PageNumber) -> Bool {
    guard let table = aside[Self.region(page)] else { return false }
    return table.detachedAt == history.flushes
  }

  /// Fills the leaf table of a region that is free for a superpage with the leaves of 512 frames from `first`'s on. The
  /// region is detached afterwards, and was never seen if it was bare.
  /// - Returns: false when there is no frame for a table; nothing has changed for the processor.
  public mutating func fillAside(
    _ page: PageNumber, first: PageTableEntry, takeFrame: () -> FrameNumber?
  ) -> Bool {
    precondition(first.frame.rawValue % 512 == 0, "a superpage that is not aligned")
    guard let slot = unsafe makeDirectories(for: page, takeFrame: takeFrame) else { return false }
    let entry = unsafe PageTableEntry(rawValue: ckvm_load(slot))
    if !entry.hasTable {
      guard let frame = takeTable(takeFrame) else { return false }
      // Nobody has seen this entry: as good as detached before the last flush.
      aside[Self.region(page)] = AsideTable(frame: frame, detachedAt: .max)
      unsafe ckvm_store(slot, PageTableEntry.detached)
    }
    precondition(!entry.isPresent, "a superpage where there is a table")
    guard let table = unsafe leafTable(page) else { preconditionFailure("a leaf table that was just made is missing") }
    for index in 0..<Self.pagesPerTable { unsafe ckvm_store(table + index, first.rawValue + UInt64(index) << 12) }
    return true
  }

  /// The first of a region's leaves, if together they can be a superpage: all present, frames adjacent and aligned, rights
  /// the same.
  public mutating func promotableLeaf(_ page: PageNumber) -> PageTableEntry? {
    guard let table = unsafe leafTable(page) else { return nil }
    let used = PageTableEntry.accessed | PageTableEntry.dirty
    let changing = used | PageTableEntry.suspected
    let first = unsafe ckvm_load(table)
    guard PageTableEntry(rawValue: first).isPresent, PageTableEntry(rawValue: first).frame.rawValue % 512 == 0 else {
      return nil
    }
    var bits = first & ~PageTableEntry.suspected
    for index in 1..<Self.pagesPerTable {
      let entry = unsafe ckvm_load(table + index)
      guard entry & ~changing == (first & ~changing) + UInt64(index) << 12 else { return nil }
      bits |= entry & used
    }
    return PageTableEntry(rawValue: bits)
  }

  /// Takes a region's directory entry away. The processor may go on using what it knew: each leaf that changes must be
  /// zapped.
  /// - Parameter cause: why, if it is a superpage's.
  public mutating func detach(_ page: PageNumber, _ cause: SplitCause = .unmapped) {
    guard let slot = unsafe directorySlot(page), let table = unsafe leafTable(page) else { return }
    let entry = unsafe PageTableEntry(rawValue: ckvm_exchange(slot, PageTableEntry.detached))
    if entry.isSuperpage {
      let used = entry.rawValue & (PageTableEntry.accessed | PageTableEntry.dirty)
      for index in 0..<Self.pagesPerTable { unsafe ckvm_store(table + index, ckvm_load(table + index) | used) }
      aside[Self.region(page)]?.detachedAt = history.flushes
      aside[Self.region(page)]?.split = cause
      history.superpages -= 1
    } else if entry.isPresent {
      aside[Self.region(page)] = AsideTable(frame: entry.frame, detachedAt: history.flushes)
    }
    lastIsSuperpage = false
  }

  /// Lets the processor see a detached region through its leaf table. All translations have been flushed meanwhile.
  public mutating func attach(_ page: PageNumber, now: UInt64) {
    precondition(!needsFlush(page), "a directory entry gets another role before KVM has forgotten the last one")
    guard let slot = unsafe directorySlot(page), let table = aside.removeValue(forKey: Self.region(page)) else {
      return
    }
    if let cause = table.split {
      history.splits[cause, default: 0] += 1
      noteSplit(page, now: now)
    }
    unsafe ckvm_store(slot, PageTableEntry(table: table.frame).rawValue)
  }

  /// The same as a superpage, if its leaves permit it; else nothing changes, and no flush is needed.
  /// - Returns: whether it is one.
  public mutating func attachAsSuperpage(_ page: PageNumber) -> Bool {
    guard let slot = unsafe directorySlot(page), let leaf = promotableLeaf(page) else { return false }
    precondition(!needsFlush(page), "a directory entry gets another role before KVM has forgotten the last one")
    aside[Self.region(page)]?.split = nil
    unsafe ckvm_store(slot, PageTableEntry(superpage: leaf).rawValue)
    history.superpages += 1
    lastIsSuperpage = true
    return true
  }

  /// The region was a superpage, and now there is a flush because of that.
  public mutating func noteSplit(_ page: PageNumber, now: UInt64) {
    splits[Self.region(page), default: SplitHistory()].note(now)
  }

  /// The region was a superpage, and cost a flush.
  public func wasSplit(_ page: PageNumber) -> Bool { !splits.isEmpty && splits[Self.region(page)] != nil }

  /// Whether that is long enough ago.
  public func mayBeSuperpage(_ page: PageNumber, now: UInt64) -> Bool {
    splits[Self.region(page)]?.permits(now) ?? true
  }

  /// The tree is another task's from now on.
  public mutating func forgetSplits() { splits.removeAll() }
}
