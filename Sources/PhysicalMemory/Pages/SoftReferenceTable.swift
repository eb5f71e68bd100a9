// The records of released frames, and the list of contents that only they name. See SoftReference.swift.

internal import GuestMemory

/// An index in the table of soft references; 0 is the head of the list of released contents.
struct SoftReferenceNumber: Hashable, Sendable, BitwiseCopyable {
  let rawValue: UInt32
  init(_ rawValue: UInt32) { self.rawValue = rawValue }
}

/// 32 bytes, used while a frame is released.
struct SoftReference: BitwiseCopyable {
  /// The container's slot and the id.
  var container: ContainerSlot
  var id: FrameID
  fileprivate var content: UInt32
  /// Neighbours in the list of references to the same content.
  fileprivate var previous: UInt32 = 0
  fileprivate var next: UInt32 = 0
  /// In a content's first reference: the number of references, and the content's neighbours in the list of released
  /// contents, if it is on it.
  fileprivate var count: UInt16 = 0
  fileprivate var isListed = false
  fileprivate var older: UInt32 = 0
  fileprivate var younger: UInt32 = 0
  /// In further references: a counter of the record's uses.
  fileprivate var stamp: UInt32 {
    get { older }
    set { older = newValue }
  }

  var contentNumber: ContentNumber { ContentNumber(content) }
}

/// All soft references, and the list of released contents from the oldest to the youngest: a ring through record 0.
struct SoftReferenceTable: ~Copyable {
  /// The maximum number of references to one content, so that few steps drop them all. Further ids cannot be recovered.
  static let mostOfOneContent = 1024

  private var records: SparseArray<SoftReference>
  private var firstFree: UInt32 = 0
  private var used: UInt32 = 1
  private(set) var count = 0
  private var lastStamp: UInt32 = 0

  init(capacity: Int) throws(ReservationError) { records = try SparseArray(count: capacity + 1) }

  subscript(number: SoftReferenceNumber) -> SoftReference { records[Int(number.rawValue)] }

  /// Identifies a further reference among all uses of its record.
  func stamp(_ number: SoftReferenceNumber) -> UInt64 { UInt64(self[number].stamp) << 32 | UInt64(number.rawValue) }

  /// The further reference with this stamp, if it still exists.
  func further(_ stamp: UInt64) -> SoftReferenceNumber? {
    let number = SoftReferenceNumber(UInt32(truncatingIfNeeded: stamp))
    return self[number].previous != 0 && self.stamp(number) == stamp ? number : nil
  }

  /// The number of references to a content.
  func count(of content: Content) -> Int { content.firstReference.map { Int(self[$0].count) } ?? 0 }

  /// Adds a reference to a content; nil when the table is full.
  mutating func insert(_ shown: ContainerFrame, _ number: ContentNumber, _ content: inout Content)
    -> SoftReferenceNumber?
  {
    let index: UInt32
    if firstFree != 0 {
      index = firstFree
      firstFree = records[Int(index)].next
    } else {
      guard Int(used) < records.count else { return nil }
      index = used
      used += 1
    }
    var reference = SoftReference(container: shown.container, id: shown.id, content: number.rawValue)
    if let first = content.firstReference {
      // Insert after the first, which stays first.
      reference.previous = first.rawValue
      reference.next = self[first].next
      lastStamp &+= 1
      reference.stamp = lastStamp
      if reference.next != 0 { records[Int(reference.next)].previous = index }
      records[Int(first.rawValue)].next = index
      records[Int(first.rawValue)].count += 1
    } else {
      reference.count = 1
      content.firstReference = SoftReferenceNumber(index)
    }
    records[Int(index)] = reference
    count += 1
    return SoftReferenceNumber(index)
  }

  mutating func remove(_ number: SoftReferenceNumber, _ content: inout Content) {
    let reference = self[number]
    if reference.previous == 0 { replaceFirst(reference, &content) }
    if reference.previous != 0 { records[Int(reference.previous)].next = reference.next }
    if reference.next != 0 { records[Int(reference.next)].previous = reference.previous }
    if reference.previous != 0, let first = content.firstReference { records[Int(first.rawValue)].count -= 1 }
    records[Int(number.rawValue)] = SoftReference(container: ContainerSlot(0), id: 0, content: 0, next: firstFree)
    firstFree = number.rawValue
    count -= 1
  }

  /// Makes the next reference the content's first.
  private mutating func replaceFirst(_ first: SoftReference, _ content: inout Content) {
    guard first.next != 0 else {
      unlist(content)
      return content.firstReference = nil
    }
    content.firstReference = SoftReferenceNumber(first.next)
    records[Int(first.next)].count = first.count - 1
    guard first.isListed else { return }
    records[Int(first.next)].isListed = true
    records[Int(first.next)].older = first.older
    records[Int(first.next)].younger = first.younger
    records[Int(first.older)].younger = first.next
    records[Int(first.younger)].older = first.next
  }

  /// Puts a content on the list, as the youngest, if only references name it; otherwise takes it off.
  /// - Returns: whether it was put on.
  @discardableResult
  mutating func update(_ content: Content) -> Bool {
    guard let first = content.firstReference else { return false }
    let isReleased = Int(content.sharers) == Int(self[first].count)
    guard isReleased != self[first].isListed else { return false }
    guard isReleased else {
      unlist(content)
      return false
    }
    let youngest = records[0].older
    records[Int(first.rawValue)].isListed = true
    records[Int(first.rawValue)].older = youngest
    records[Int(first.rawValue)].younger = 0
    records[Int(youngest)].younger = first.rawValue
    records[0].older = first.rawValue
    return true
  }

  private mutating func unlist(_ content: Content) {
    guard let first = content.firstReference, self[first].isListed else { return }
    let reference = self[first]
    records[Int(reference.older)].younger = reference.younger
    records[Int(reference.younger)].older = reference.older
    records[Int(first.rawValue)].isListed = false
  }

  /// The content that was released first.
  var oldest: ContentNumber? { younger(than: 0) }
  /// For checks: the content released next after `content`, which has references.
  func younger(than content: Content) -> ContentNumber? {
    content.firstReference.flatMap { younger(than: $0.rawValue) }
  }
  private func younger(than index: UInt32) -> ContentNumber? {
    let next = records[Int(index)].younger
    return next == 0 ? nil : records[Int(next)].contentNumber
  }

  /// For checks: calls `body` with each reference to a content.
  func forEach(of content: Content, _ body: (SoftReferenceNumber) -> Void) {
    var next = content.firstReference?.rawValue ?? 0
    while next != 0 {
      body(SoftReferenceNumber(next))
      next = records[Int(next)].next
    }
  }
}
