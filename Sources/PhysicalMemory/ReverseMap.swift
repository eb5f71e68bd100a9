// From a frame to the page-table leaves that name it, so that the server can take a frame back from everyone
// (R25). Most frames are mapped once: then the frame's own record holds the place and nothing else is needed.
//
//      record.link:  0 ─ no leaf
//                    place of the one leaf
//                    chain ──▶ node (3 places) ──▶ node (3 places) ──▶ 0

internal import GuestMemory

/// One leaf: a page of a task's address space, in 51 bits.
struct MappedPlace: Equatable, BitwiseCopyable {
  let rawValue: UInt64
  private static let pageBits: UInt64 = 36

  @inline(__always)
  init(_ slot: TaskSlot, _ page: PageNumber) { rawValue = UInt64(slot.rawValue) << Self.pageBits | page.rawValue }
  init(rawValue: UInt64) { self.rawValue = rawValue }

  var slot: TaskSlot { TaskSlot(UInt32(truncatingIfNeeded: rawValue >> Self.pageBits)) }
  var page: PageNumber { PageNumber(rawValue & (1 << Self.pageBits - 1)) }
}

/// The chains of frames that are mapped more than once. A link is kept by the frame's record.
struct ReverseMap: ~Copyable {
  struct Node: BitwiseCopyable {
    var places: (UInt64, UInt64, UInt64)
    var next: UInt32
    /// Places in this node; and in it and all behind it.
    var used: UInt16
    var total: UInt16
  }

  /// More leaves than this for one frame, and the server drops one of them for a new one: what a task can make
  /// the server walk is bounded, and a mapping may go at any time.
  static let maximumPlaces = 4096

  private static let chain: UInt64 = 1 << 63
  private static let single: UInt64 = 1 << 62

  private var nodes: SparseArray<Node>
  private var firstFree: UInt32 = 0
  private var used: UInt32 = 1
  private(set) var nodeCount = 0

  init(capacity: Int) throws(ReservationError) { nodes = try SparseArray(count: capacity + 1) }

  /// Adds a place. False: there is no room, and the caller must drop one of this frame's places first.
  @inline(__always)
  mutating func add(_ place: MappedPlace, to link: inout UInt64) -> Bool {
    if link == 0 {
      link = place.rawValue | Self.single
      return true
    }
    return addToChain(place, &link)
  }

  private mutating func addToChain(_ place: MappedPlace, _ link: inout UInt64) -> Bool {
    if link & Self.single != 0 {
      guard let node = takeNode() else { return false }
      nodes[Int(node)] = Node(places: (link & ~Self.single, place.rawValue, 0), next: 0, used: 2, total: 2)
      link = Self.chain | UInt64(node)
      return true
    }
    let head = UInt32(truncatingIfNeeded: link)
    switch nodes[Int(head)].used {
    case 1:
      nodes[Int(head)].places.1 = place.rawValue
      nodes[Int(head)].used = 2
      nodes[Int(head)].total += 1
      return true
    case 2:
      nodes[Int(head)].places.2 = place.rawValue
      nodes[Int(head)].used = 3
      nodes[Int(head)].total += 1
      return true
    default: break
    }
    let total = nodes[Int(head)].total
    guard total < Self.maximumPlaces, let node = takeNode() else { return false }
    nodes[Int(node)] = Node(places: (place.rawValue, 0, 0), next: head, used: 1, total: total + 1)
    // Only a head is ever less than full.
    link = Self.chain | UInt64(node)
    return true
  }

  /// Removes a place that is there.
  @inline(__always)
  mutating func remove(_ place: MappedPlace, from link: inout UInt64) {
    if link == place.rawValue | Self.single {
      link = 0
      return
    }
    removeFromChain(place, &link)
  }

  private mutating func removeFromChain(_ place: MappedPlace, _ link: inout UInt64) {
    precondition(link & Self.chain != 0, "a leaf that the reverse map does not know")
    // The head's last place fills the gap. With it the head itself may go.
    let last = takeLastPlace(of: UInt32(truncatingIfNeeded: link), &link)
    if last == place.rawValue { return }
    var node = UInt32(truncatingIfNeeded: link)
    while node != 0 {
      if replace(place.rawValue, by: last, in: node) { return }
      node = nodes[Int(node)].next
    }
    preconditionFailure("a leaf that the reverse map does not know")
  }

  private mutating func takeLastPlace(of head: UInt32, _ link: inout UInt64) -> UInt64 {
    let node = nodes[Int(head)]
    switch node.used {
    case 3:
      nodes[Int(head)].used = 2
      nodes[Int(head)].total -= 1
      return node.places.2
    case 2:
      nodes[Int(head)].used = 1
      nodes[Int(head)].total -= 1
      return node.places.1
    default:
      link = node.next == 0 ? 0 : Self.chain | UInt64(node.next)
      giveNode(head)
      return node.places.0
    }
  }

  private mutating func replace(_ old: UInt64, by new: UInt64, in node: UInt32) -> Bool {
    let count = nodes[Int(node)].used
    if nodes[Int(node)].places.0 == old {
      nodes[Int(node)].places.0 = new
    } else if count > 1, nodes[Int(node)].places.1 == old {
      nodes[Int(node)].places.1 = new
    } else if count > 2, nodes[Int(node)].places.2 == old {
      nodes[Int(node)].places.2 = new
    } else {
      return false
    }
    return true
  }

  /// Any one place of a frame that has one.
  func first(of link: UInt64) -> MappedPlace? {
    if link == 0 { return nil }
    if let place = only(of: link) { return place }
    return MappedPlace(rawValue: nodes[Int(UInt32(truncatingIfNeeded: link))].places.0)
  }

  /// The place of a frame that has exactly one and no node.
  @inline(__always)
  func only(of link: UInt64) -> MappedPlace? {
    link & Self.single != 0 ? MappedPlace(rawValue: link & ~Self.single) : nil
  }

  func forEach(in link: UInt64, _ body: (MappedPlace) -> Void) {
    if let place = only(of: link) { return body(place) }
    var node = UInt32(truncatingIfNeeded: link)
    while node != 0 {
      let record = nodes[Int(node)]
      body(MappedPlace(rawValue: record.places.0))
      if record.used > 1 { body(MappedPlace(rawValue: record.places.1)) }
      if record.used > 2 { body(MappedPlace(rawValue: record.places.2)) }
      node = record.next
    }
  }

  func count(_ link: UInt64) -> Int {
    if link & Self.chain == 0 { return link == 0 ? 0 : 1 }
    return Int(nodes[Int(UInt32(truncatingIfNeeded: link))].total)
  }

  private mutating func takeNode() -> UInt32? {
    nodeCount += 1
    if firstFree != 0 {
      let node = firstFree
      firstFree = nodes[Int(node)].next
      return node
    }
    guard Int(used) < nodes.count else {
      nodeCount -= 1
      return nil
    }
    used += 1
    return used - 1
  }

  private mutating func giveNode(_ node: UInt32) {
    nodes[Int(node)] = Node(places: (0, 0, 0), next: firstFree, used: 0, total: 0)
    firstFree = node
    nodeCount -= 1
  }
}
