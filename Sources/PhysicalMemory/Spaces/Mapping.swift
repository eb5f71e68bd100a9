// A task's mappings: which part of which container is mapped at which address (R25).
//
// A mapping lives from pm_container_map until it is unmapped, mapped over, or the task ends. The page table is a cache
// of it: the server may clear leaves at any time and fill them in again from here.

internal import GuestMemory

/// Names a container for its lifetime: the slot may be reused, the generation tells.
struct ContainerReference: Hashable, BitwiseCopyable {
  let slot: ContainerSlot
  let generation: UInt32
}

/// Maps `count` pages from `start` on to the container's ids from `frame` on.
struct Mapping: BitwiseCopyable {
  var start: PageNumber
  var count: UInt64
  var container: ContainerReference
  var frame: FrameID
  var flags: MappingFlags
  /// 0: made by the container's owner. Otherwise the epoch of the weak capability it was made through; shows nothing
  /// once that is revoked.
  var epoch: UInt32 = 0
  /// Of the image or the stack: never forgotten by the server.
  var isInitial = false
  /// Fault-around: the next page of a sequential reader, and the length of the last window.
  var expected = PageNumber(0)
  var window: UInt32 = 0

  var end: PageNumber { PageNumber(start.rawValue + count) }

  /// The id that `page` shows. `page` must be in the mapping.
  @inline(__always)
  func frame(at page: PageNumber) -> FrameID {
    FrameID(frame.rawValue &+ UInt32(truncatingIfNeeded: page.rawValue - start.rawValue))
  }

  /// The part of the mapping in `first ..< last`, which must overlap it.
  func clamped(from first: PageNumber, to last: PageNumber) -> Mapping {
    var part = self
    let newStart = max(start, first)
    part.frame = frame(at: newStart)
    part.start = newStart
    part.count = min(end, last).rawValue - newStart.rawValue
    return part
  }

  /// Whether `next` continues this mapping, in addresses and in ids.
  func continues(with next: Mapping) -> Bool {
    end == next.start && container == next.container && flags == next.flags && epoch == next.epoch
      && isInitial == next.isInitial
      && frame.position + count == next.frame.position
  }
}

/// Sorted, disjoint mappings in chunks of bounded size: a binary search finds one, a change moves at most one chunk.
struct MappingTable: ~Copyable {
  struct Index: Equatable {
    var chunk: Int
    var offset: Int
  }

  /// The maximum number of mappings of a task; more get PM_ENOMEM.
  static let capacity = 1 << 18
  private static let chunkCapacity = 128

  private var chunks: [[Mapping]] = []
  private var last = Index(chunk: 0, offset: 0)
  private(set) var count = 0

  subscript(index: Index) -> Mapping {
    @inline(__always) get { chunks[index.chunk][index.offset] }
    @inline(__always) set { chunks[index.chunk][index.offset] = newValue }
  }

  /// The mapping that contains `page`.
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

  /// Removes mappings in `first ..< end`, at most `limit` of them, and cuts those that extend beyond it.
  /// - Returns: false when more are left.
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

  /// Whether removing `first ..< end` splits a mapping in two.
  func isCutInTwo(by first: PageNumber, _ end: PageNumber) -> Bool {
    guard let index = lowerBound(first) else { return false }
    return self[index].start < first && self[index].end > end
  }

  /// Inserts a mapping into an unmapped range and merges it with adjacent mappings that it continues.
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

  /// Calls `body` with the part of each mapping in `first ..< end`, in order.
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

  /// Removes the mappings of a chunk for which `keep` returns false.
  /// - Returns: the next chunk; nil: this was the last.
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
  /// Whether a mapping is still in force: its container exists, and its share has not been revoked.
  @inline(__always)
  func isGood(_ mapping: Mapping) -> Bool {
    isLive(mapping.container) && (mapping.epoch == 0 || mapping.epoch == containers[mapping.container.slot].epoch)
  }

  /// The lock that blocks faults on this mapping of the container's owner; nil: none.
  @inline(__always)
  mutating func currentLock(_ mapping: Mapping, against task: TaskSlot) -> ContainerLock? {
    guard containers[mapping.container.slot].lock != nil, containers[mapping.container.slot].owner == task else {
      return nil
    }
    return currentLock(mapping.container.slot)
  }
}
