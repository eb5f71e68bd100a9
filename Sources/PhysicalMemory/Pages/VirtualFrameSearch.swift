// Searches over the ids of a container: runs, counts, the first of a kind.

extension VirtualFrameTable {
  /// The length of the run of ids from `start` on, up to `limit`, that are all in use (or all not). Takes a step a
  /// leaf.
  func run(from start: FrameID, limit: Int, inUse: Bool) -> Int {
    var position = position(start.rawValue >> Self.shift)
    var id = start.position
    let end = id + UInt64(limit)
    while id < end {
      let leafStart = position < leaves.count ? UInt64(leaves[position].key) << UInt64(Self.shift) : 1 << 32
      if leafStart > id {
        // No leaf: none of these ids is in use.
        if inUse { break }
        id = min(leafStart, end)
        continue
      }
      let length = Int(min(leafStart + UInt64(Self.idsPerLeaf), end) - id)
      let same = leafRun(position, Int(id - leafStart), length, inUse: inUse)
      id += UInt64(same)
      if same < length { break }
      position += 1
    }
    return Int(id - start.position)
  }

  /// As `run`, within one leaf.
  private func leafRun(_ position: Int, _ offset: Int, _ length: Int, inUse: Bool) -> Int {
    if leaves[position].used == Self.idsPerLeaf { return inUse ? length : 0 }
    if leaves[position].used == 0 { return inUse ? 0 : length }
    let words = unsafe leaves[position].words
    for index in offset..<(offset + length) {
      if unsafe VirtualFrameWord.isUsed(words[index]) != inUse { return index - offset }
    }
    return length
  }

  /// The first id in use at or after `start`.
  func firstUsed(from start: FrameID) -> FrameID? {
    first(from: start, in: { $0.used > 0 }, where: VirtualFrameWord.isUsed)
  }

  /// The first released id at or after `start`.
  func firstReleased(from start: FrameID) -> FrameID? {
    first(from: start, in: { $0.released > 0 }, where: VirtualFrameWord.isReleased)
  }

  @inline(__always)
  private func first(
    from start: FrameID, in mayHave: (Leaf) -> Bool, where isWanted: (UInt32) -> Bool
  ) -> FrameID? {
    var position = position(start.rawValue >> Self.shift)
    var id = start.rawValue
    while position < leaves.count {
      let key = leaves[position].key
      if key > id >> Self.shift { id = key << Self.shift }
      if mayHave(leaves[position]) {
        let words = unsafe leaves[position].words
        for index in (Int(id) & (Self.idsPerLeaf - 1))..<Self.idsPerLeaf where unsafe isWanted(words[index]) {
          return FrameID(key << Self.shift | UInt32(index))
        }
      }
      position += 1
    }
    return nil
  }

  /// The number of ids in use among `count` ids from `start` on. Takes a step a leaf.
  func usedCount(from start: FrameID, count: Int) -> Int {
    let end = start.position + UInt64(count)
    var position = position(start.rawValue >> Self.shift)
    var used = 0
    while position < leaves.count {
      let leafStart = UInt64(leaves[position].key) << UInt64(Self.shift)
      guard leafStart < end else { break }
      let first = Int(max(leafStart, start.position) - leafStart)
      let last = Int(min(leafStart + UInt64(Self.idsPerLeaf), end) - leafStart)
      used += usedCount(leaf: position, first..<last)
      position += 1
    }
    return used
  }

  private func usedCount(leaf position: Int, _ offsets: Range<Int>) -> Int {
    if offsets.count == Self.idsPerLeaf || leaves[position].used == 0 { return Int(leaves[position].used) }
    let words = unsafe leaves[position].words
    var used = 0
    for index in offsets { used += unsafe VirtualFrameWord.isUsed(words[index]) ? 1 : 0 }
    return used
  }

  /// The longest range from `start` on, up to `limit` ids, with at most `unused` unused ids. Takes a step a leaf.
  func prefix(from start: FrameID, limit: Int, unused: Int) -> Int {
    let end = start.position + UInt64(limit)
    var position = position(start.rawValue >> Self.shift)
    var id = start.position
    var left = UInt64(unused)
    while id < end {
      let leafStart = position < leaves.count ? UInt64(leaves[position].key) << UInt64(Self.shift) : 1 << 32
      if leafStart > id {
        let gap = min(leafStart, end) - id
        if gap > left { return Int(id + left - start.position) }
        left -= gap
        id += gap
        continue
      }
      let offset = Int(id - leafStart)
      let length = Int(min(leafStart + UInt64(Self.idsPerLeaf), end) - id)
      let fresh = UInt64(length - usedCount(leaf: position, offset..<(offset + length)))
      if fresh > left { return Int(id - start.position) + leafPrefix(position, offset, Int(left)) }
      left -= fresh
      id += UInt64(length)
      position += 1
    }
    return limit
  }

  /// The number of ids from `offset` of a leaf on, up to the first unused id in excess of `unused`.
  private func leafPrefix(_ position: Int, _ offset: Int, _ unused: Int) -> Int {
    let words = unsafe leaves[position].words
    var left = unused
    for index in offset..<Self.idsPerLeaf where unsafe !VirtualFrameWord.isUsed(words[index]) {
      if left == 0 { return index - offset }
      left -= 1
    }
    return Self.idsPerLeaf - offset
  }

  /// The length of the run of empty ids from `start` on, up to `limit`.
  func emptyRun(from start: FrameID, limit: Int) -> Int {
    var position = position(start.rawValue >> Self.shift)
    var id = start.position
    let end = id + UInt64(limit)
    while id < end, position < leaves.count, UInt64(leaves[position].key) == id >> UInt64(Self.shift) {
      let words = unsafe leaves[position].words
      let offset = Int(id) & (Self.idsPerLeaf - 1)
      let last = min(Self.idsPerLeaf, offset + Int(end - id))
      var index = offset
      while index < last, unsafe words[index] == VirtualFrameWord.empty.rawValue { index += 1 }
      id += UInt64(index - offset)
      if index < last { break }
      position += 1
    }
    return Int(id - start.position)
  }
}
