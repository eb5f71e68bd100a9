// Virtual frames: the ids of a container, and what each id names.

internal import GuestMemory

/// What an id names: nothing, an empty frame, a content, or, when released, a soft reference, which everything except
/// recovery treats as nothing.
struct VirtualFrameWord: Equatable, BitwiseCopyable {
  let rawValue: UInt32
  init(rawValue: UInt32) { self.rawValue = rawValue }
  @inline(__always) init(_ content: ContentNumber) { rawValue = content.rawValue }
  init(_ reference: SoftReferenceNumber) { rawValue = Self.released | reference.rawValue }

  /// Words from here on name soft references. Content numbers are smaller.
  private static let released: UInt32 = 1 << 31

  /// The id is not in use.
  static var unused: VirtualFrameWord { VirtualFrameWord(rawValue: 0) }
  /// Allocated and never touched: reads as zero, has no frame.
  static var empty: VirtualFrameWord { VirtualFrameWord(rawValue: 1) }
  /// Released and never touched: recoverable without a soft reference.
  static var releasedEmpty: VirtualFrameWord { VirtualFrameWord(rawValue: released) }

  @inline(__always) var isUsed: Bool { Self.isUsed(rawValue) }
  @inline(__always) var content: ContentNumber? { Self.isContent(rawValue) ? ContentNumber(rawValue) : nil }
  var softReference: SoftReferenceNumber? {
    rawValue > Self.released ? SoftReferenceNumber(rawValue & ~Self.released) : nil
  }
  var isReleased: Bool { Self.isReleased(rawValue) }

  @inline(__always) static func isUsed(_ word: UInt32) -> Bool { word &- 1 < released - 1 }
  @inline(__always) static func isContent(_ word: UInt32) -> Bool {
    word &- ContentTable.firstNumber < released - ContentTable.firstNumber
  }
  @inline(__always) static func isReleased(_ word: UInt32) -> Bool { word >= released }
}

/// Maps ids to words: leaves of 1,024 ids, found by binary search. A leaf has memory only while one of its ids is in
/// use, so a container costs 4 bytes a frame, and at most one leaf for each charged frame. Leaves without memory are
/// removed many at a time: freeing scattered ids does not shift the leaf array for each.
// SAFETY: each leaf's memory is allocated and freed here, with `idsPerLeaf` words; indices are masked to that. Leaves
// without memory share one block of the same size, all zero, that is never written or freed.
@safe
struct VirtualFrameTable: ~Copyable {
  @safe
  private struct Leaf {
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

  private static let shift: UInt32 = 10
  private static let idsPerLeaf = 1 << 10

  private var leaves: [Leaf] = []
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
  private func position(_ key: UInt32) -> Int {
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
