// The invariants of the frame pool, checked by a walk over all of it: for tests.

internal import GuestMemory

extension FramePool {
  /// Checks all invariants of the pool. Takes time proportional to the pool's size.
  /// - Returns: a sentence for each violation.
  public func checkInvariants() -> [String] {
    var violations: [String] = []
    var found = PoolCensus()
    var index = 0
    while index < count {
      let frame = FrameNumber(UInt32(index))
      let record = records[frame]
      found.count(record.state, 1)
      index += 1
      switch record.state {
      case .interior:
        // An untouched frame of the area for page tables looks the same.
        if !tableArea.untouched.contains(index - 1) {
          violations.append("Frame \(frame.rawValue) is marked as inside a free run but is in none.")
        }
      case .freeHead:
        index += checkFreeRun(frame, &violations, &found)
      case .stocked:
        if record.isDirty { violations.append("Frame \(frame.rawValue) is stocked but dirty.") }
      case .loose, .zeroing, .inUse, .table, .isolated, .reserved, .spare, .waiting:
        break
      }
    }
    if records[FrameNumber(0)].state != .reserved { violations.append("Frame 0 is not reserved.") }
    checkRunLists(&violations, found)
    checkList(loose, .loose, expected: found[.loose], "The loose list", &violations)
    checkList(stock, .stocked, expected: found[.stocked], "The stock", &violations)
    checkList(tableArea.spare, .spare, expected: found[.spare], "The list of spare frames", &violations)
    checkList(
      waiting.open, .waiting, expected: found[.waiting] - endingCount, "The open list of waiting frames", &violations)
    checkList(waiting.ending, .waiting, expected: endingCount, "The ending list of waiting frames", &violations)
    if zeroingCount != found[.zeroing] {
      violations.append("\(found[.zeroing]) frames are being zeroed, the counter says \(zeroingCount).")
    }
    let free =
      found[.freeHead] + found[.interior] + found[.loose] + found[.stocked] + found[.spare]
      + found[.waiting]
    if freeCount != free { violations.append("\(free) frames are free, the counter says \(freeCount).") }
    return violations
  }

  /// Checks and counts the free run that starts at a frame.
  /// - Returns: the number of frames after its head.
  private func checkFreeRun(_ head: FrameNumber, _ violations: inout [String], _ found: inout PoolCensus) -> Int {
    let start = Int(head.rawValue)
    let order = Int(records[head].order)
    guard order < FreeRuns.orderCount, start & ((1 << order) - 1) == 0, start + (1 << order) <= count else {
      violations.append("The free run at \(start) of order \(order) is misaligned or extends beyond the pool.")
      return 0
    }
    let last = head.advanced(by: (1 << order) - 1)
    if FrameZone(of: head) != FrameZone(of: last) { violations.append("The free run at \(start) spans two zones.") }
    for index in start + 1..<start + (1 << order) where records.storage[index].state != .interior {
      violations.append("Frame \(index) is in the free run at \(start) but is \(records.storage[index].state).")
    }
    let buddy = start ^ (1 << order)
    if buddy < count, records.storage[buddy].isFreeHead(order: order) {
      violations.append("The free runs at \(start) and \(buddy) of order \(order) are not merged.")
    }
    found.count(.interior, (1 << order) - 1)
    found.countRun(FrameZone(of: head).rawValue * FreeRuns.orderCount + order)
    return (1 << order) - 1
  }

  private func checkRunLists(_ violations: inout [String], _ found: borrowing PoolCensus) {
    for zone in FrameZone.allCases {
      var freeCount = 0
      for order in 0..<FreeRuns.orderCount {
        let expected = found.runs.span[zone.rawValue * FreeRuns.orderCount + order]
        freeCount += expected << order
        let list = runs.list(zone: zone, order: order)
        checkList(list, .freeHead, expected: expected, "The list of order \(order), \(zone),", &violations)
        if (runs.orders(in: zone) & (1 << UInt32(order)) != 0) != (expected > 0) {
          violations.append("The mask of \(zone) is wrong about order \(order).")
        }
      }
      if runs.freeCount(in: zone) != freeCount {
        violations.append("\(freeCount) frames are in runs of \(zone), the counter says \(runs.freeCount(in: zone)).")
      }
    }
  }

  /// Walks a list both ways, at most as many frames as it may hold.
  private func checkList(
    _ list: FrameList,
    _ state: FrameState,
    expected: Int,
    _ name: @autoclosure () -> String,
    _ violations: inout [String]
  ) {
    let head = records.storage[Int(list.head)]
    if expected == 0, head.next == list.head, head.previous == list.head, head.owner == 0 { return }
    var length = 0
    var previous = list.head
    var node = head.next
    while node != list.head, length <= expected {
      let record = records.storage[Int(node)]
      if record.state != state { violations.append("\(name()) holds frame \(node), which is \(record.state).") }
      if record.previous != previous { violations.append("\(name()) is not linked back at frame \(node).") }
      length += 1
      previous = node
      node = record.next
    }
    if node == list.head, records.storage[Int(list.head)].previous != previous {
      violations.append("\(name()) is not linked back at its head.")
    }
    if length != expected || records.count(of: list) != expected {
      violations.append(
        "\(name()) holds \(length) frames and counts \(records.count(of: list)), but should have \(expected)."
      )
    }
  }
}

/// The result of a walk over all frames. Holds no arrays, since the simulation walks after every step.
private struct PoolCensus: ~Copyable {
  /// Frames by state.
  var states = InlineArray<11, Int>(repeating: 0)
  /// Free runs by zone and order.
  var runs = InlineArray<96, Int>(repeating: 0)

  // Through spans, which change the arrays in place.
  @inline(__always)
  mutating func count(_ state: FrameState, _ frames: Int) {
    var states = states.mutableSpan
    states[Int(state.rawValue)] += frames
  }

  @inline(__always)
  mutating func countRun(_ index: Int) {
    var runs = runs.mutableSpan
    runs[index] += 1
  }

  init() { precondition(states.count == FrameState.allCases.count && runs.count == FreeRuns.listCount) }

  subscript(state: FrameState) -> Int { states.span[Int(state.rawValue)] }
}
