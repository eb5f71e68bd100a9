// Contents: a page's worth of data each, named by virtual frames.
//
// The life of a content:
//  1. *empty*: never touched. It has no record; the virtual frame's word says so.
//  2. *resident*: it has a frame, whose record names it. It links to its soft references, if it has any.
//  3. *released*: only soft references name it. On the list of SoftReferenceTable, until one is recovered.
//  4. freed: its last sharer is gone. On the free list of records; the frame is back in the pool.

internal import GuestMemory

/// An index in the table of contents.
struct ContentNumber: Hashable, Sendable, BitwiseCopyable {
  let rawValue: UInt32
  init(_ rawValue: UInt32) { self.rawValue = rawValue }
}

/// 12 bytes; 28 bytes for each frame of the pool, including the frame's record.
struct Content: BitwiseCopyable {
  var frame: FrameNumber
  /// The number of virtual frames that name this content, including soft references; more than one: a logical copy.
  var sharers: UInt32
  /// The first soft reference; 0: none. In a free record: the next free one.
  fileprivate var link: UInt32

  var firstReference: SoftReferenceNumber? {
    get { link == 0 ? nil : SoftReferenceNumber(link) }
    set { link = newValue?.rawValue ?? 0 }
  }
}

/// The records of all contents, allocated sparsely.
struct ContentTable: ~Copyable {
  private var records: SparseArray<Content>
  private var firstFree: UInt32 = 0
  /// The number of records ever used. Later ones were never touched.
  private var used: UInt32
  private(set) var count = 0

  /// Lower words have other meanings in a virtual frame (see VirtualFrameWord).
  static let firstNumber: UInt32 = 2

  init(capacity: Int) throws(ReservationError) {
    records = try SparseArray(count: capacity + Int(Self.firstNumber))
    used = Self.firstNumber
  }

  /// Makes a record for a content in `frame` with one sharer; nil when the table is full.
  @inline(__always)
  mutating func insert(frame: FrameNumber) -> ContentNumber? {
    let number: UInt32
    if firstFree != 0 {
      number = firstFree
      firstFree = records[Int(number)].link
    } else {
      guard Int(used) < records.count else { return nil }
      number = used
      used += 1
    }
    records[Int(number)] = Content(frame: frame, sharers: 1, link: 0)
    count += 1
    return ContentNumber(number)
  }

  /// Makes records for adjacent frames from `frame` on, one for each element of `numbers`. The table must have room.
  mutating func insert(frames frame: FrameNumber, into numbers: inout MutableSpan<UInt32>) {
    for index in numbers.indices {
      guard let number = insert(frame: frame.advanced(by: index)) else {
        preconditionFailure("more contents than frames")
      }
      numbers[index] = number.rawValue
    }
  }

  /// Above the number of any content.
  var numberLimit: Int { Int(used) }

  mutating func remove(_ number: ContentNumber) {
    precondition(records[Int(number.rawValue)].sharers == 0, "a content in use was freed")
    records[Int(number.rawValue)] = Content(frame: .none, sharers: 0, link: firstFree)
    firstFree = number.rawValue
    count -= 1
  }

  /// Records that the content has moved to another frame.
  mutating func setFrame(_ number: ContentNumber, _ frame: FrameNumber) { records[Int(number.rawValue)].frame = frame }

  subscript(_ number: ContentNumber) -> Content {
    @inline(__always) get { records[Int(number.rawValue)] }
    @inline(__always) set { records[Int(number.rawValue)] = newValue }
  }

  @inline(__always)
  mutating func addSharers(_ number: ContentNumber, _ count: Int32) {
    records[Int(number.rawValue)].sharers &+= UInt32(bitPattern: count)
  }
}

extension ServerState {
  /// Frees the record of a content without sharers. The caller frees its frame.
  mutating func freeContent(_ number: ContentNumber) {
    giveUpPlace(number)
    contents.remove(number)
  }
}
