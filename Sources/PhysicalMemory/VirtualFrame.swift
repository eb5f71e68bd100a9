// Virtual frames: the ids of a container, and what each names.

internal import GuestMemory

/// What one id of a container names: nothing, an empty frame, or a content.
struct VirtualFrameWord: Equatable, BitwiseCopyable {
  let rawValue: UInt32
  init(rawValue: UInt32) { self.rawValue = rawValue }
  @inline(__always) init(_ content: ContentNumber) { rawValue = content.rawValue }

  /// The id is not in use.
  static var unused: VirtualFrameWord { VirtualFrameWord(rawValue: 0) }
  /// Allocated and never touched: reads as zeros, has no frame.
  static var empty: VirtualFrameWord { VirtualFrameWord(rawValue: 1) }

  @inline(__always) var isUsed: Bool { rawValue != 0 }
  @inline(__always) var content: ContentNumber? {
    rawValue >= ContentTable.firstNumber ? ContentNumber(rawValue) : nil
  }
}

/// Container ids to words: leaves of 1,024 ids, found by binary search. A leaf exists only while an id in it is
/// in use, so a container costs 4 bytes a frame, and never more than one leaf a frame charged to its owner.
// SAFETY: a leaf's memory is allocated here with `idsPerLeaf` words and freed here; indices are masked to it.
@safe
struct VirtualFrameTable: ~Copyable {
  @safe
  private struct Leaf {
    let key: UInt32
    var used: Int
    let words: UnsafeMutablePointer<UInt32>
  }

  private static let shift: UInt32 = 10
  private static let idsPerLeaf = 1 << 10

  private var leaves: [Leaf] = []
  /// Ids in use.
  private(set) var count = 0

  deinit {
    for leaf in leaves { unsafe leaf.words.deallocate() }
  }

  /// The index of the first leaf whose key is not below `key`.
  private func position(_ key: UInt32) -> Int {
    // Most containers have one leaf or are walked from the end.
    if let last = leaves.last, last.key < key { return leaves.count }
    var low = 0
    var high = leaves.count
    while low < high {
      let middle = (low + high) / 2
      if leaves[middle].key < key { low = middle + 1 } else { high = middle }
    }
    return low
  }

  @inline(__always)
  subscript(_ id: UInt32) -> VirtualFrameWord {
    let key = id >> Self.shift
    let position = position(key)
    guard position < leaves.count, leaves[position].key == key else { return .unused }
    return unsafe VirtualFrameWord(rawValue: leaves[position].words[Int(id) & (Self.idsPerLeaf - 1)])
  }

  /// Changes what an id names.
  mutating func set(_ id: UInt32, _ word: VirtualFrameWord) {
    fill(id, count: 1, word)
  }

  /// Makes `count` ids from `start` on name the same: `.empty`, `.unused` or, for one id, a content.
  mutating func fill(_ start: UInt32, count: Int, _ word: VirtualFrameWord) {
    var id = UInt64(start)
    let end = id + UInt64(count)
    precondition(end <= 1 << 32)
    while id < end {
      let key = UInt32(id >> UInt64(Self.shift))
      let offset = Int(id) & (Self.idsPerLeaf - 1)
      let length = min(Self.idsPerLeaf - offset, Int(end - id))
      fillLeaf(key, offset, length, word)
      id += UInt64(length)
    }
  }

  private mutating func fillLeaf(_ key: UInt32, _ offset: Int, _ length: Int, _ word: VirtualFrameWord) {
    let position = position(key)
    let exists = position < leaves.count && leaves[position].key == key
    if !exists {
      guard word.isUsed else { return }
      let words = UnsafeMutablePointer<UInt32>.allocate(capacity: Self.idsPerLeaf)
      unsafe words.initialize(repeating: 0, count: Self.idsPerLeaf)
      unsafe leaves.insert(Leaf(key: key, used: 0, words: words), at: position)
    }
    let words = unsafe leaves[position].words
    var change = 0
    for index in offset..<(offset + length) {
      change += (word.isUsed ? 1 : 0) - (unsafe words[index] != 0 ? 1 : 0)
      unsafe words[index] = word.rawValue
    }
    count += change
    leaves[position].used += change
    if leaves[position].used == 0 {
      unsafe words.deallocate()
      leaves.remove(at: position)
    }
  }

  /// How many ids from `start` on, up to `limit`, are in use (or are not), in one unbroken run.
  func run(from start: UInt32, limit: Int, inUse: Bool) -> Int {
    var length = 0
    while length < limit {
      let id = UInt32(UInt64(start) + UInt64(length))
      let key = id >> Self.shift
      let offset = Int(id) & (Self.idsPerLeaf - 1)
      let most = min(Self.idsPerLeaf - offset, limit - length)
      let position = position(key)
      guard position < leaves.count, leaves[position].key == key else {
        if inUse { return length }
        length += most
        continue
      }
      let words = unsafe leaves[position].words
      for index in offset..<(offset + most) {
        if unsafe (words[index] != 0) != inUse { return length + index - offset }
      }
      length += most
    }
    return length
  }

  /// The first id at or after `start` that is in use.
  func firstUsed(from start: UInt32) -> UInt32? {
    var position = position(start >> Self.shift)
    var id = start
    while position < leaves.count {
      let key = leaves[position].key
      if key > id >> Self.shift { id = key << Self.shift }
      let words = unsafe leaves[position].words
      for index in (Int(id) & (Self.idsPerLeaf - 1))..<Self.idsPerLeaf where unsafe words[index] != 0 {
        return key << Self.shift | UInt32(index)
      }
      position += 1
    }
    return nil
  }

  /// The longest stretch from `start` on, up to `limit` ids, with no more than `unused` unused ids in it.
  func prefix(from start: UInt32, limit: Int, unused: Int) -> Int {
    var length = 0
    var left = unused
    while length < limit {
      length += run(from: UInt32(UInt64(start) + UInt64(length)), limit: limit - length, inUse: true)
      guard length < limit else { break }
      let fresh = run(from: UInt32(UInt64(start) + UInt64(length)), limit: limit - length, inUse: false)
      length += min(fresh, left)
      if fresh > left { break }
      left -= fresh
    }
    return length
  }
}
