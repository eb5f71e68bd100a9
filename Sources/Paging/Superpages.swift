// Superpages: a directory entry that is itself a leaf of 2 MiB, for 512 adjacent frames from a multiple of 512 on.
//
// The region keeps its full leaf table, and all code above this sees 512 leaves. While the directory entry does
// not name the table, it is kept aside.
//
//  A region is
//  1. bare: the entry is empty and has always been.
//  2. tabled: the entry names the leaf table.
//  3. a superpage: the entry is a leaf; the table aside is full and has the same leaves.
//  4. detached: the entry is not present; the table aside may hold anything, and the processor sees none of it.
//
//   bare ──▶ tabled, superpage       no earlier entry can be cached
//   tabled, superpage ──▶ detached   at any time; leaves that change are zapped, as always
//   detached ──▶ tabled, superpage   after a flush of all translations since then
//
// The flush is needed for KVM's shadow of the directory. A shadow entry that links the shadow of a table survives a zap
// of frames, and KVM takes it for the entry's next target: the next superpage's, or the next table's. On kernels
// without the fixes of 2026 that corrupts the host kernel (docs/internals/decisions/0012). Nested paging loses nothing by it.
// Between detaching and attaching no walk gets past the entry, so no new shadow is linked to it.

internal import CKVM
public import GuestMemory

/// State shared by the trees of one machine. Used under the server's lock.
public final class TranslationHistory {
  /// Flushes of all translations so far.
  public var flushes: UInt64 = 0
  /// Superpages that were split into leaf tables, by cause.
  public internal(set) var splits: [SplitCause: Int] = [:]
  /// The current number of superpages.
  public internal(set) var superpages = 0

  public init() {}
}

/// A leaf table that its directory entry does not name.
struct AsideTable {
  let frame: FrameNumber
  /// Of a detached region: the number of flushes at that time.
  var detachedAt: UInt64
  /// The region was a superpage before.
  var split: SplitCause?
}

/// The backoff of a region whose superpage was split at the cost of a flush: it does not become a superpage again for a
/// second after the first time, for two after the second, and so on.
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
  /// The directory entry of a page's region; empty if there is no directory.
  private func directoryEntry(_ page: PageNumber) -> PageTableEntry {
    guard let slot = unsafe directorySlot(page) else { return .empty }
    return unsafe PageTableEntry(rawValue: ckvm_load(slot))
  }

  private static func region(_ page: PageNumber) -> UInt64 { page.rawValue >> 9 }
  private static func firstPage(_ page: PageNumber) -> PageNumber { PageNumber(page.rawValue & ~511) }

  /// The entry of the superpage that contains a page.
  public func superpage(_ page: PageNumber) -> PageTableEntry? {
    let entry = directoryEntry(page)
    return entry.isSuperpage ? entry : nil
  }

  /// Whether the region has no leaf, and no directory entry that would have to change.
  public mutating func isFreeForSuperpage(_ page: PageNumber) -> Bool {
    let entry = directoryEntry(page)
    if !entry.hasTable { return true }
    return !entry.isPresent && absentRun(from: Self.firstPage(page), limit: Self.pagesPerTable) == Self.pagesPerTable
  }

  /// Whether the region is detached or was changed: it must be attached to take effect.
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
  /// region is detached then, and if it was bare, no flush is needed.
  /// - Returns: false if there is no frame for a table; nothing has changed for the processor.
  public mutating func fillAside(
    _ page: PageNumber, first: PageTableEntry, takeFrame: () -> FrameNumber?
  ) -> Bool {
    precondition(first.frame.rawValue % 512 == 0, "a superpage that is not aligned")
    guard let slot = unsafe makeDirectories(for: page, takeFrame: takeFrame) else { return false }
    let entry = unsafe PageTableEntry(rawValue: ckvm_load(slot))
    if !entry.hasTable {
      guard let frame = takeTable(takeFrame) else { return false }
      // This entry was never visible: treat it as detached before the last flush.
      aside[Self.region(page)] = AsideTable(frame: frame, detachedAt: .max)
      unsafe ckvm_store(slot, PageTableEntry.detached)
    }
    precondition(!entry.isPresent, "a superpage where there is a table")
    guard let table = unsafe leafTable(page) else { preconditionFailure("a leaf table that was just made is missing") }
    for index in 0..<Self.pagesPerTable { unsafe ckvm_store(table + index, first.rawValue + UInt64(index) << 12) }
    return true
  }

  /// The first leaf of a region, if its leaves can be a superpage: present, adjacent, aligned, with equal rights.
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

  /// Clears a region's directory entry. The processor may still use cached translations: each leaf that changes must be
  /// zapped.
  /// - Parameter cause: why, if it was a superpage.
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

  /// Points the directory entry of a detached region at its leaf table. All translations have been flushed meanwhile.
  public mutating func attach(_ page: PageNumber, now: UInt64) {
    precondition(!needsFlush(page), "a directory entry is reused before a flush")
    guard let slot = unsafe directorySlot(page), let table = aside.removeValue(forKey: Self.region(page)) else {
      return
    }
    if let cause = table.split {
      history.splits[cause, default: 0] += 1
      noteSplit(page, now: now)
    }
    unsafe ckvm_store(slot, PageTableEntry(table: table.frame).rawValue)
  }

  /// Attaches a region as a superpage, if its leaves permit it; else nothing changes, and no flush is needed.
  /// - Returns: whether it is a superpage now.
  public mutating func attachAsSuperpage(_ page: PageNumber) -> Bool {
    guard let slot = unsafe directorySlot(page), let leaf = promotableLeaf(page) else { return false }
    precondition(!needsFlush(page), "a directory entry is reused before a flush")
    aside[Self.region(page)]?.split = nil
    unsafe ckvm_store(slot, PageTableEntry(superpage: leaf).rawValue)
    history.superpages += 1
    lastIsSuperpage = true
    return true
  }

  /// Records that splitting the region's superpage now costs a flush.
  public mutating func noteSplit(_ page: PageNumber, now: UInt64) {
    splits[Self.region(page), default: SplitHistory()].note(now)
  }

  /// Whether the region was a superpage that cost a flush.
  public func wasSplit(_ page: PageNumber) -> Bool { !splits.isEmpty && splits[Self.region(page)] != nil }

  /// Whether the backoff of the region is over.
  public func mayBeSuperpage(_ page: PageNumber, now: UInt64) -> Bool {
    splits[Self.region(page)]?.permits(now) ?? true
  }

  /// Forgets the backoff: the tree goes to another task.
  public mutating func forgetSplits() { splits.removeAll() }
}
