// Virtual frames: the ids of a container, and what each id names.

internal import GuestMemory

/// Maps ids to words: leaves of 1,024 ids, found by binary search. A leaf has memory only while one of its ids is in
/// use, so a container costs 4 bytes a frame, and at most one leaf for each charged frame. Leaves without memory are
/// removed many at a time: freeing scattered ids does not shift the leaf array for each.
// SAFETY: each leaf's memory is allocated and freed here, with `idsPerLeaf` words; indices are masked to that. Leaves
// without memory share one block of the same size, all zero, that is never written or freed.
@safe
struct VirtualFrameTable: ~Copyable {
  @safe
  struct Leaf {
    let key: UInt32
    var used: Int32 = 0
    /// Released ids.
    var released: Int32 = 0
    /// Ids whose frames are pinned.
    var pinned: Int32 = 0
    var words: UnsafeMutablePointer<UInt32>

    /// Whether it has memory of its own: an id is in use or released.
    var isThere: Bool { used > 0 || released > 0 }
  }

  private nonisolated(unsafe) static let noWords: UnsafeMutablePointer<UInt32> = unsafe makeWords()
  private static func makeWords() -> UnsafeMutablePointer<UInt32> {
    let words = UnsafeMutablePointer<UInt32>.allocate(capacity: idsPerLeaf)
    unsafe words.initialize(repeating: 0, count: idsPerLeaf)
    return unsafe words
  }

  static let shift: UInt32 = 10
  static let idsPerLeaf = 1 << 10

  private(set) var leaves: [Leaf] = []
  /// Leaves without memory.
  private var goneCount = 0
  /// Ids in use.
  private(set) var count = 0
  private(set) var releasedCount = 0
  /// Released ids that were never touched.
  private(set) var releasedEmptyCount = 0
  private(set) var pinnedCount = 0

  deinit {
    for leaf in leaves where leaf.isThere { unsafe leaf.words.deallocate() }
  }

  /// The index of the first leaf whose key is not below `key`.
  func position(_ key: UInt32) -> Int {
    // Most containers have one leaf, or are filled in ascending order.
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
  subscript(_ id: FrameID) -> VirtualFrameWord {
    let key = id.rawValue >> Self.shift
    let position = position(key)
    guard position < leaves.count, leaves[position].key == key else { return .unused }
    return unsafe VirtualFrameWord(rawValue: leaves[position].words[Int(id.rawValue) & (Self.idsPerLeaf - 1)])
  }

  /// Sets the word of an id.
  mutating func set(_ id: FrameID, _ word: VirtualFrameWord) {
    fill(id, count: 1, word)
  }

  /// Replaces the word of an id in use with another in-use word. False: the id is not in use.
  @inline(__always)
  mutating func replace(_ id: FrameID, _ word: VirtualFrameWord) -> Bool {
    let key = id.rawValue >> Self.shift
    let position = position(key)
    guard word.isUsed, position < leaves.count, leaves[position].key == key else { return false }
    let words = unsafe leaves[position].words
    guard unsafe VirtualFrameWord.isUsed(words[Int(id.rawValue) & (Self.idsPerLeaf - 1)]) else { return false }
    unsafe words[Int(id.rawValue) & (Self.idsPerLeaf - 1)] = word.rawValue
    return true
  }

  /// Sets `count` ids from `start` on to the same word: `.empty`, `.unused` or, for one id, a content.
  mutating func fill(_ start: FrameID, count: Int, _ word: VirtualFrameWord) {
    var id = start.position
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
    if !exists || !leaves[position].isThere {
      guard word.isUsed || word.isReleased else { return }
      if exists {
        unsafe leaves[position].words = Self.makeWords()
        goneCount -= 1
      } else {
        unsafe leaves.insert(Leaf(key: key, words: Self.makeWords()), at: position)
      }
    }
    let words = unsafe leaves[position].words
    var used = word.isUsed ? length : 0
    var released = word.isReleased ? length : 0
    if word == .releasedEmpty { releasedEmptyCount += length }
    for index in offset..<(offset + length) {
      let old = unsafe words[index]
      if VirtualFrameWord.isUsed(old) { used -= 1 }
      if VirtualFrameWord.isReleased(old) { released -= 1 }
      if old == VirtualFrameWord.releasedEmpty.rawValue { releasedEmptyCount -= 1 }
      unsafe words[index] = word.rawValue
    }
    count += used
    releasedCount += released
    leaves[position].used += Int32(used)
    leaves[position].released += Int32(released)
    if !leaves[position].isThere {
      precondition(leaves[position].pinned == 0, "pinned ids are deallocated")
      unsafe words.deallocate()
      unsafe leaves[position].words = Self.noWords
      goneCount += 1
      if goneCount > 8, goneCount > leaves.count / 2 {
        leaves.removeAll { !$0.isThere }
        goneCount = 0
      }
    }
  }

  /// Sets consecutive empty ids from `start` on to contents.
  mutating func fillEmpty(_ start: FrameID, _ numbers: Span<UInt32>) {
    var done = 0
    while done < numbers.count {
      let id = start.rawValue + UInt32(done)
      let offset = Int(id) & (Self.idsPerLeaf - 1)
      let length = min(Self.idsPerLeaf - offset, numbers.count - done)
      let words = unsafe leaves[position(id >> Self.shift)].words
      for index in 0..<length {
        precondition(unsafe words[offset + index] == VirtualFrameWord.empty.rawValue, "an id that is not empty")
        unsafe words[offset + index] = numbers[done + index]
      }
      done += length
    }
  }

  /// For checks: calls `body` with each id that names a content.
  /// - Returns: false: the counts of ids in use are wrong.
  func forEachContent(_ body: (FrameID, ContentNumber) -> Void) -> Bool {
    var total = 0
    var totalReleased = 0
    var isRight = true
    for leaf in leaves where leaf.isThere {
      var used = 0
      var released = 0
      // Most words are zero: test sixteen at a time.
      for start in stride(from: 0, to: Self.idsPerLeaf, by: 16) {
        var any: UInt32 = 0
        for index in start..<start + 16 { any |= unsafe leaf.words[index] }
        if any == 0 { continue }
        for index in start..<start + 16 {
          let word = unsafe leaf.words[index]
          if VirtualFrameWord.isUsed(word) { used += 1 }
          if VirtualFrameWord.isReleased(word) { released += 1 }
          if VirtualFrameWord.isContent(word) {
            body(FrameID(leaf.key << Self.shift | UInt32(index)), ContentNumber(word))
          }
        }
      }
      if used != leaf.used || released != leaf.released { isRight = false }
      total += used
      totalReleased += released
    }
    return isRight && total == count && totalReleased == releasedCount && leaves.count { !$0.isThere } == goneCount
  }

  /// Counts a new pin of an id, or the end of one.
  mutating func countPin(_ id: FrameID, _ change: Int) {
    let position = position(id.rawValue >> Self.shift)
    precondition(
      position < leaves.count && leaves[position].key == id.rawValue >> Self.shift, "a pin of an unused id")
    leaves[position].pinned += Int32(change)
    pinnedCount += change
  }

  /// The first id in a range that names a content and shares a leaf of this table with a pinned id. Takes a step a
  /// leaf.
  func firstNearPinned(_ ids: Range<UInt64>) -> FrameID? {
    guard !ids.isEmpty, pinnedCount > 0 else { return nil }
    var position = position(UInt32(ids.lowerBound >> UInt64(Self.shift)))
    while position < leaves.count {
      let leafStart = UInt64(leaves[position].key) << UInt64(Self.shift)
      guard leafStart < ids.upperBound else { return nil }
      if leaves[position].pinned > 0 {
        let words = unsafe leaves[position].words
        let first = Int(max(leafStart, ids.lowerBound) - leafStart)
        let last = Int(min(leafStart + UInt64(Self.idsPerLeaf), ids.upperBound) - leafStart)
        for index in first..<last where unsafe VirtualFrameWord.isContent(words[index]) {
          return FrameID(position: leafStart + UInt64(index))
        }
      }
      position += 1
    }
    return nil
  }

  /// For checks: the pin count of each leaf, by its first id.
  func forEachPinCount(_ body: (FrameID, Int) -> Void) {
    for leaf in leaves where leaf.pinned != 0 { body(FrameID(leaf.key << Self.shift), Int(leaf.pinned)) }
  }

  /// The first id in `start ..< start + limit` that names a content.
  func firstContent(from start: FrameID, limit: Int) -> FrameID? {
    var position = position(start.rawValue >> Self.shift)
    let end = start.position + UInt64(limit)
    while position < leaves.count {
      let leafStart = UInt64(leaves[position].key) << UInt64(Self.shift)
      guard leafStart < end else { return nil }
      guard leaves[position].used > 0 else {
        position += 1
        continue
      }
      let words = unsafe leaves[position].words
      let first = Int(max(leafStart, start.position) - leafStart)
      let last = Int(min(leafStart + UInt64(Self.idsPerLeaf), end) - leafStart)
      for index in first..<last where unsafe VirtualFrameWord.isContent(words[index]) {
        return FrameID(position: leafStart + UInt64(index))
      }
      position += 1
    }
    return nil
  }
}
