// A task's mappings: which part of which container it wants to see where (R25).
//
// A mapping lives from pm_container_map until it is unmapped, mapped over, or its task ends. What is in force at
// a moment is in the page table only; the server may clear that at any time and fill it in again from here.

internal import GuestMemory

/// Names a container for as long as it exists: the slot may get another one, the generation tells.
struct ContainerReference: Hashable, BitwiseCopyable {
  let slot: ContainerSlot
  let generation: UInt32
}

/// `count` pages from `start` on show the container's frames from `frame` on.
struct Mapping: BitwiseCopyable {
  var start: PageNumber
  var count: UInt64
  var container: ContainerReference
  var frame: FrameID
  var flags: MappingFlags
  /// 0: made by the container's owner. Else through a weak capability of that epoch: nothing once it is cancelled.
  var epoch: UInt32 = 0
  /// Of the image or the stack: the server never forgets it.
  var isInitial = false
  /// Fault-around: the page that a sequential reader would touch next, and how many were served last.
  var expected = PageNumber(0)
  var window: UInt32 = 0

  var end: PageNumber { PageNumber(start.rawValue + count) }

  /// The id that `page` shows; `page` lies in the mapping.
  @inline(__always)
  func frame(at page: PageNumber) -> FrameID {
    FrameID(frame.rawValue &+ UInt32(truncatingIfNeeded: page.rawValue - start.rawValue))
  }

  /// The part of the mapping in `pages`, which it overlaps.
  func clamped(from first: PageNumber, to last: PageNumber) -> Mapping {
    var part = self
    let newStart = max(start, first)
    part.frame = frame(at: newStart)
    part.start = newStart
    part.count = min(end, last).rawValue - newStart.rawValue
    return part
  }

  /// Whether `next` goes on where this one ends, in addresses and in frames.
  func continues(with next: Mapping) -> Bool {
    end == next.start && container == next.container && flags == next.flags && epoch == next.epoch
      && isInitial == next.isInitial
      && frame.position + count == next.frame.position
  }
}

/// Sorted, disjoint mappings in chunks of bounded size: finding is a binary search, changing moves one chunk.
struct MappingTable: ~Copyable {
  struct Index: Equatable {
    var chunk: Int
    var offset: Int
  }

  /// A task with more mappings than this gets PM_ENOMEM.
  static let capacity = 1 << 18
  private static let chunkCapacity = 128

  private var chunks: [[Mapping]] = []
  private var last = Index(chunk: 0, offset: 0)
  private(set) var count = 0

  subscript(index: Index) -> Mapping {
    @inline(__always) get { chunks[index.chunk][index.offset] }
    @inline(__always) set { chunks[index.chunk][index.offset] = newValue }
  }

  /// The mapping that holds `page`.
  @inline(__always)
  mutating func find(_ page: PageNumber) -> Index? {
    if last.chunk < chunks.count, last.offset < chunks[last.chunk].count {
      let mapping = chunks[last.chunk][last.offset]
      if page.rawValue &- mapping.start.rawValue < mapping.count { return last }
    }
    let index = lowerBound(page)
    guard let index, self[index].start <= page else { return nil }
    last = index
    return index
  }

  /// The first mapping that ends after `page`.
  func lowerBound(_ page: PageNumber) -> Index? {
    var low = 0
    var high = chunks.count
    while low < high {
      let middle = (low + high) / 2
      if chunks[middle][chunks[middle].count - 1].end <= page { low = middle + 1 } else { high = middle }
    }
    guard low < chunks.count else { return nil }
    let chunk = low
    low = 0
    high = chunks[chunk].count
    while low < high {
      let middle = (low + high) / 2
      if chunks[chunk][middle].end <= page { low = middle + 1 } else { high = middle }
    }
    return Index(chunk: chunk, offset: low)
  }

  /// Removes what lies in `first ..< end`, cutting mappings that reach over its ends, at most `limit` of them.
  /// - Returns: false when there is more to remove.
  @discardableResult
  mutating func remove(from first: PageNumber, to end: PageNumber, limit: Int = .max) -> Bool {
    var left = limit
    while let index = lowerBound(first), self[index].start < end {
      guard left > 0 else { return false }
      let mapping = self[index]
      delete(index)
      if mapping.start < first { insertOne(mapping.clamped(from: mapping.start, to: first)) }
      if mapping.end > end { insertOne(mapping.clamped(from: end, to: mapping.end)) }
      left -= 1
    }
    return true
  }

  /// Whether removing `first ..< end` leaves two parts of one mapping.
  func isCutInTwo(by first: PageNumber, _ end: PageNumber) -> Bool {
    guard let index = lowerBound(first) else { return false }
    return self[index].start < first && self[index].end > end
  }

  /// Inserts a mapping where there is none, joining it with neighbours that it continues.
  mutating func insert(_ mapping: Mapping) {
    var mapping = mapping
    if mapping.start.rawValue > 0, let before = find(PageNumber(mapping.start.rawValue - 1)),
      self[before].continues(with: mapping)
    {
      let joined = self[before]
      delete(before)
      mapping.start = joined.start
      mapping.frame = joined.frame
      mapping.count += joined.count
    }
    if let after = find(mapping.end), mapping.continues(with: self[after]) {
      mapping.count += self[after].count
      delete(after)
    }
    insertOne(mapping)
  }

  /// Calls `body` with the part of each mapping that lies in `first ..< end`, in order.
  func forEach(from first: PageNumber, to end: PageNumber, _ body: (Mapping) -> Void) {
    guard var index = lowerBound(first) else { return }
    while index.chunk < chunks.count {
      let chunk = chunks[index.chunk]
      for mapping in chunk[index.offset...] {
        if mapping.start >= end { return }
        body(mapping.clamped(from: first, to: end))
      }
      index = Index(chunk: index.chunk + 1, offset: 0)
    }
  }

  mutating func removeAll() {
    chunks = []
    count = 0
  }

  /// Calls `body` with each mapping of a chunk.
  func forEach(chunk: Int, _ body: (Mapping) -> Void) {
    guard chunk < chunks.count else { return }
    for mapping in chunks[chunk] { body(mapping) }
  }

  /// Removes the mappings of a chunk that `keep` says no to.
  /// - Returns: the next chunk, if there is one.
  mutating func filter(chunk: Int, _ keep: (Mapping) -> Bool) -> Int? {
    guard chunk < chunks.count else { return nil }
    let before = chunks[chunk].count
    chunks[chunk].removeAll { !keep($0) }
    count -= before - chunks[chunk].count
    guard chunks[chunk].isEmpty else { return chunk + 1 < chunks.count ? chunk + 1 : nil }
    chunks.remove(at: chunk)
    return chunk < chunks.count ? chunk : nil
  }

  private mutating func delete(_ index: Index) {
    chunks[index.chunk].remove(at: index.offset)
    if chunks[index.chunk].isEmpty { chunks.remove(at: index.chunk) }
    count -= 1
  }

  private mutating func insertOne(_ mapping: Mapping) {
    count += 1
    guard let index = lowerBound(mapping.start) else {
      if chunks.isEmpty || chunks[chunks.count - 1].count >= Self.chunkCapacity {
        chunks.append([mapping])
      } else {
        chunks[chunks.count - 1].append(mapping)
      }
      return
    }
    chunks[index.chunk].insert(mapping, at: index.offset)
    if chunks[index.chunk].count > Self.chunkCapacity {
      let tail = Array(chunks[index.chunk][(Self.chunkCapacity / 2)...])
      chunks[index.chunk].removeSubrange((Self.chunkCapacity / 2)...)
      chunks.insert(tail, at: index.chunk + 1)
    }
  }
}

extension ServerState {
  /// Whether a mapping still shows anything: its container is there, and its share has not been cancelled.
  @inline(__always)
  func isGood(_ mapping: Mapping) -> Bool {
    isLive(mapping.container) && (mapping.epoch == 0 || mapping.epoch == containers[mapping.container.slot].epoch)
  }

  /// The lock that keeps a mapping of the owner's from being filled in.
  @inline(__always)
  mutating func currentLock(_ mapping: Mapping, against task: TaskSlot) -> ContainerLock? {
    guard containers[mapping.container.slot].lock != nil, containers[mapping.container.slot].owner == task else {
      return nil
    }
    return currentLock(mapping.container.slot)
  }
}
