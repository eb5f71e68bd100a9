// The reverse map: from a frame to the page-table leaves that name it, so that the server can revoke the frame (R25).
// Most frames are mapped once: the frame's own record then holds the place, and no node is needed.
//
//      record.link:  0 ─ no leaf
//                    place of the one leaf
//                    chain ──▶ node (3 places) ──▶ node (3 places) ──▶ 0

internal import GuestMemory

/// A leaf's position: a page of a task's address space, in 51 bits. A place in the map has further bits: whether the
/// mapping was made through a weak capability, whether it counts against its task's allowance, and a hash of the id
/// shown, which finds the leaves of one id among many without looking up their mappings.
///
///      61 … 53   52        51     50 … 36   35 … 0
///      id        surplus   weak   slot      page
struct MappedPlace: Equatable, BitwiseCopyable {
  let rawValue: UInt64
  private static let pageBits: UInt64 = 36
  private static let location: UInt64 = 1 << 51 - 1
  fileprivate static let slot: UInt64 = location & ~(1 << pageBits - 1)
  fileprivate static let weak: UInt64 = 1 << 51
  fileprivate static let surplus: UInt64 = 1 << 52
  fileprivate static let id: UInt64 = 511 << 53

  /// The position of a leaf.
  @inline(__always)
  init(_ slot: TaskSlot, _ page: PageNumber) { rawValue = UInt64(slot.rawValue) << Self.pageBits | page.rawValue }

  /// A leaf's position, and what it shows.
  @inline(__always)
  init(_ slot: TaskSlot, _ page: PageNumber, showing shown: ContainerFrame, isWeak: Bool) {
    rawValue =
      UInt64(slot.rawValue) << Self.pageBits | page.rawValue | (isWeak ? Self.weak : 0) | Self.bits(of: shown)
  }
  init(rawValue: UInt64) { self.rawValue = rawValue }

  @inline(__always)
  fileprivate static func bits(of shown: ContainerFrame) -> UInt64 {
    // A multiplicative hash: the high bits differ for consecutive ids.
    ((UInt64(shown.container.rawValue) << 32 | shown.id.position) &* 0x9e37_79b9_7f4a_7c15) >> 2 & Self.id
  }

  var slot: TaskSlot { TaskSlot(UInt32(truncatingIfNeeded: (rawValue & Self.slot) >> Self.pageBits)) }
  var page: PageNumber { PageNumber(rawValue & (1 << Self.pageBits - 1)) }
  /// The position alone.
  var location: UInt64 { rawValue & Self.location }
  var isSurplus: Bool { rawValue & Self.surplus != 0 }
  var withoutSurplus: MappedPlace { MappedPlace(rawValue: rawValue & ~Self.surplus) }
  fileprivate var asSurplus: MappedPlace { MappedPlace(rawValue: rawValue | Self.surplus) }

  /// Compares positions only.
  @inline(__always)
  static func == (one: MappedPlace, other: MappedPlace) -> Bool {
    (one.rawValue ^ other.rawValue) & location == 0
  }
}

/// Selects leaves of a frame. The hash may let a few leaves of other ids pass.
struct PlaceFilter {
  private let mask: UInt64
  private let value: UInt64

  static let all = PlaceFilter(mask: 0, value: 0)

  static func showing(_ shown: ContainerFrame) -> PlaceFilter {
    PlaceFilter(mask: MappedPlace.id, value: MappedPlace.bits(of: shown))
  }

  /// Leaves of mappings made through weak capabilities.
  static func weak(_ shown: ContainerFrame) -> PlaceFilter {
    PlaceFilter(mask: MappedPlace.id | MappedPlace.weak, value: MappedPlace.bits(of: shown) | MappedPlace.weak)
  }

  static func showing(_ shown: ContainerFrame, to task: TaskSlot) -> PlaceFilter {
    PlaceFilter(
      mask: MappedPlace.id | MappedPlace.slot,
      value: MappedPlace.bits(of: shown) | MappedPlace(task, PageNumber(0)).rawValue)
  }

  @inline(__always)
  func passes(_ place: MappedPlace) -> Bool { place.rawValue & mask == value }
}

/// The chains of frames that are mapped more than once. The frame's record holds the link to its chain.
///
/// Nodes cannot run out. The first three places of a frame need one node, and there is one for each frame. A further
/// place is *surplus*; each task has an allowance of them, and there is a node for each.
struct ReverseMap: ~Copyable {
  struct Node: BitwiseCopyable {
    var places: (UInt64, UInt64, UInt64)
    var next: UInt32
    /// Places in this node; and in it and all later nodes.
    var used: UInt16
    var total: UInt16

    subscript(index: Int) -> UInt64 {
      get { index == 0 ? places.0 : index == 1 ? places.1 : places.2 }
      set {
        switch index {
        case 0: places.0 = newValue
        case 1: places.1 = newValue
        default: places.2 = newValue
        }
      }
    }
  }

  /// The position of a walk along a chain, before one of its places.
  struct Position {
    fileprivate var node: UInt32
    fileprivate var index = 0

    /// Keeps the place found last.
    mutating func skip() { index += 1 }
  }

  /// The maximum number of leaves of a frame; a new one then replaces an old one. Bounds what tasks together can make
  /// the server walk. Replacing is permitted, since any mapping may be revoked at any time.
  static let maximumPlaces = 4096

  private static let chain: UInt64 = 1 << 63
  private static let single: UInt64 = 1 << 62
  private static let placesPerNode = 3

  private var nodes: SparseArray<Node>
  private var firstFree: UInt32 = 0
  private var used: UInt32 = 1
  private(set) var nodeCount = 0

  init(capacity: Int) throws(ReservationError) { nodes = try SparseArray(count: capacity + 1) }

  /// Whether one more place would not be surplus.
  func hasRoom(_ link: UInt64) -> Bool { count(link) < Self.placesPerNode }

  /// Adds a place. False: it would be surplus.
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
    return nodes[Int(UInt32(truncatingIfNeeded: link))].total < Self.placesPerNode && append(place, &link)
  }

  /// Adds a surplus place. False: the frame has the maximum number.
  mutating func addSurplus(_ place: MappedPlace, to link: inout UInt64) -> Bool {
    link & Self.chain != 0 && append(place.asSurplus, &link)
  }

  private mutating func append(_ place: MappedPlace, _ link: inout UInt64) -> Bool {
    let head = UInt32(truncatingIfNeeded: link)
    let node = nodes[Int(head)]
    if node.used < Self.placesPerNode {
      nodes[Int(head)][Int(node.used)] = place.rawValue
      nodes[Int(head)].used += 1
      nodes[Int(head)].total += 1
      return true
    }
    guard node.total < Self.maximumPlaces, let fresh = takeNode() else { return false }
    nodes[Int(fresh)] = Node(places: (place.rawValue, 0, 0), next: head, used: 1, total: node.total + 1)
    // Only the head is ever partly filled.
    link = Self.chain | UInt64(fresh)
    return true
  }

  /// Removes a place, which must exist. Adds the number of visited nodes to `looked`.
  @inline(__always)
  mutating func remove(_ place: MappedPlace, from link: inout UInt64, looked: inout Int) {
    if only(of: link) == place {
      link = 0
      return
    }
    removeFromChain(place, &link, &looked)
  }

  private mutating func removeFromChain(_ place: MappedPlace, _ link: inout UInt64, _ looked: inout Int) {
    precondition(link & Self.chain != 0, "a leaf that is not in the reverse map")
    var position = begin(link)
    while let found = next(&position, .all, looked: &looked) {
      if found == place { return remove(at: &position, from: &link) }
      position.skip()
    }
    preconditionFailure("a leaf that is not in the reverse map")
  }

  // MARK: Walks

  /// The start of a frame's chain, if it has one.
  func begin(_ link: UInt64) -> Position {
    Position(node: link & Self.chain == 0 ? 0 : UInt32(truncatingIfNeeded: link))
  }

  /// The next place that passes the filter. Skip or remove it before the walk continues.
  func next(_ position: inout Position, _ filter: PlaceFilter, looked: inout Int) -> MappedPlace? {
    while position.node != 0 {
      let node = nodes[Int(position.node)]
      while position.index < Int(node.used) {
        let place = MappedPlace(rawValue: node[position.index])
        if filter.passes(place) { return place }
        position.index += 1
      }
      position = Position(node: node.next)
      looked += 1
    }
    return nil
  }

  /// Removes the place at the walk's position.
  mutating func remove(at position: inout Position, from link: inout UInt64) {
    // The head's last place fills the gap: it was visited already, or is still to come. An empty head is freed.
    let head = UInt32(truncatingIfNeeded: link)
    nodes[Int(position.node)][position.index] = nodes[Int(head)][Int(nodes[Int(head)].used) - 1]
    nodes[Int(head)].used -= 1
    nodes[Int(head)].total -= 1
    guard nodes[Int(head)].used == 0 else { return }
    let next = nodes[Int(head)].next
    link = next == 0 ? 0 : Self.chain | UInt64(next)
    if position.node == head { position = Position(node: next) }
    giveNode(head)
  }

  /// Any place of a frame that has one.
  func first(of link: UInt64) -> MappedPlace? {
    if link == 0 { return nil }
    if let place = only(of: link) { return place }
    return MappedPlace(rawValue: nodes[Int(UInt32(truncatingIfNeeded: link))].places.0)
  }

  /// The place of a frame with exactly one leaf and no node.
  @inline(__always)
  func only(of link: UInt64) -> MappedPlace? {
    link & Self.single != 0 ? MappedPlace(rawValue: link & ~Self.single) : nil
  }

  func forEach(in link: UInt64, _ body: (MappedPlace) -> Void) {
    if let place = only(of: link) { return body(place) }
    var looked = 0
    var position = begin(link)
    while let place = next(&position, .all, looked: &looked) {
      body(place)
      position.skip()
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
