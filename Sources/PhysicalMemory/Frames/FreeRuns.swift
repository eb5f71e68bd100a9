// The free runs of the pool: a binary buddy allocator whose lists are in the frames' own records.
//
// A free run has 2^order frames and is aligned to its length. Two free runs that are halves of one of the next order
// (buddies) are always merged, so that any aligned block of free frames is within one run. Only the pool's size limits
// the order: a fresh pool of any size is a few dozen runs, and few records are touched.
//
// No run spans two zones, without any check: zones meet at frames 2^12 and 2^20, and only an aligned block that starts
// at frame 0, which is never free, can contain these. For the same reason merging ends below order 32.

internal import GuestMemory

/// The free runs of all zones, by order.
struct FreeRuns: ~Copyable {
  static let orderCount = 32
  /// The number of lists needed: one for each zone and order.
  static let listCount = FrameZone.count * orderCount

  private struct Zone {
    /// Bit n: there is a free run of order n.
    var orders: UInt32 = 0
    var freeCount = 0
  }

  /// Frames of the table; the heads of the lists follow.
  private let frameCount: Int
  /// Frames from here on are never in a free run.
  let end: Int
  private var zones = InlineArray<3, Zone>(repeating: Zone())

  init(frameCount: Int, end: Int) {
    self.frameCount = frameCount
    self.end = end
  }

  /// Free frames of all zones.
  var freeCount: Int { zones[0].freeCount + zones[1].freeCount + zones[2].freeCount }

  func freeCount(in zone: FrameZone) -> Int { zones[zone.rawValue].freeCount }

  /// Bit n: the zone has a free run of order n.
  func orders(in zone: FrameZone) -> UInt32 { zones[zone.rawValue].orders }

  func list(zone: FrameZone, order: Int) -> FrameList {
    FrameList(head: UInt32(truncatingIfNeeded: frameCount + zone.rawValue * Self.orderCount + order))
  }

  // MARK: Single runs. Callers maintain `freeCount`, once an operation instead of once an order

  private mutating func insert(_ start: FrameNumber, order: Int, in table: inout FrameTable) {
    let zone = FrameZone(of: start)
    table[start].state = .freeHead
    table[start].order = UInt8(truncatingIfNeeded: order)
    table.push(start, onto: list(zone: zone, order: order))
    zones[zone.rawValue].orders |= 1 << UInt32(truncatingIfNeeded: order)
  }

  /// Removes a run from its list. Its head becomes an interior frame; the caller sets its new state.
  private mutating func remove(_ start: FrameNumber, order: Int, in table: inout FrameTable) {
    let zone = FrameZone(of: start)
    let list = list(zone: zone, order: order)
    table.remove(start, from: list)
    table[start] = FrameRecord(flags: table[start].flags)
    if table.isEmpty(list) { zones[zone.rawValue].orders &= ~(1 << UInt32(truncatingIfNeeded: order)) }
  }

  /// Makes 2^order frames a free run and merges it with free buddies. The records must be those of interior frames.
  mutating func release(_ start: FrameNumber, order: Int, in table: inout FrameTable) {
    zones[FrameZone(of: start).rawValue].freeCount += 1 << order
    var start = start.rawValue
    var order = order
    while true {
      let buddy = start ^ (1 << UInt32(truncatingIfNeeded: order))
      guard Int(buddy) < end, table[FrameNumber(buddy)].isFreeHead(order: order) else { break }
      remove(FrameNumber(buddy), order: order, in: &table)
      start = min(start, buddy)
      order += 1
    }
    insert(FrameNumber(start), order: order, in: &table)
  }

  /// Releases the interior frames from `start` up to `end` as the fewest aligned runs.
  mutating func release(from start: Int, to end: Int, in table: inout FrameTable) {
    var start = start
    while start < end {
      let order = min(start.trailingZeroBitCount, floorLog2(end - start))
      release(FrameNumber(UInt32(start)), order: order, in: &table)
      start += 1 << order
    }
  }

  // MARK: Taking

  /// Takes 2^order aligned frames from the smallest run that has them, highest zone first.
  mutating func take(order: Int, in table: inout FrameTable) -> FrameNumber? {
    for rank in 0..<FrameZone.count {
      if let frame = take(order: order, zone: FrameZone(rank: rank), in: &table) { return frame }
    }
    return nil
  }

  private mutating func take(order: Int, zone: FrameZone, in table: inout FrameTable) -> FrameNumber? {
    let fitting = zones[zone.rawValue].orders >> UInt32(truncatingIfNeeded: order)
    guard fitting != 0 else { return nil }
    var found = order + fitting.trailingZeroBitCount
    guard let start = table.first(of: list(zone: zone, order: found)) else {
      preconditionFailure("the bit mask names an order without free runs")
    }
    remove(start, order: found, in: &table)
    zones[zone.rawValue].freeCount -= 1 << order
    // Return the upper halves, largest first, so that the next requests get the frames that follow.
    while found > order {
      found -= 1
      insert(start.advanced(by: 1 << found), order: found, in: &table)
    }
    return start
  }

  /// Takes the longest run of at most 2^order frames; if all are longer, the first part of the shortest. Uses up
  /// fragments before it splits long runs.
  mutating func takeUpTo(order: Int, in table: inout FrameTable) -> (start: FrameNumber, order: Int)? {
    for rank in 0..<FrameZone.count {
      let zone = FrameZone(rank: rank)
      let orders = zones[zone.rawValue].orders
      guard orders != 0 else { continue }
      let fragments = orders & UInt32(truncatingIfNeeded: (1 << (order + 1)) - 1)
      let wanted = fragments == 0 ? order : floorLog2(Int(fragments))
      guard let start = take(order: wanted, zone: zone, in: &table) else { continue }
      return (start, wanted)
    }
    return nil
  }

  /// Takes frames from the free run at `head`: from `start` up to `end`, or to the run's end if that comes first. The
  /// rest stays free.
  /// - Returns: the end of the taken frames.
  mutating func carve(head: FrameNumber, from start: Int, to end: Int, in table: inout FrameTable) -> Int {
    let order = Int(table[head].order)
    let runStart = Int(head.rawValue)
    let runEnd = runStart + (1 << order)
    remove(head, order: order, in: &table)
    zones[FrameZone(of: head).rawValue].freeCount -= 1 << order
    release(from: runStart, to: start, in: &table)
    release(from: min(end, runEnd), to: runEnd, in: &table)
    return min(end, runEnd)
  }
}

/// The largest n with 2^n ≤ value. The value must be positive.
func floorLog2(_ value: Int) -> Int { Int.bitWidth - 1 - value.leadingZeroBitCount }

/// The least n with 2^n ≥ value. The value must be positive.
func ceilingLog2(_ value: Int) -> Int { value <= 1 ? 0 : floorLog2(value - 1) + 1 }
