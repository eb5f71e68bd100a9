// Finding contiguous frames by alignment, address limit or exact place.

internal import GuestMemory

/// What adjacent frames are asked for.
struct RunRequest: BitwiseCopyable {
  /// In frames, at least 1.
  var count: Int
  /// The first frame is a multiple of this power of two.
  var alignment: Int
  /// The run ends at this frame or before.
  var end: Int
}

extension FreeRuns {
  /// The first frame of a free run's part that serves the request, taken from one free run. The cost is that of
  /// one bit scan in a zone wholly below the limit; in the zone that the limit divides, long enough runs are tried one
  /// by one, up to `most` of each length.
  func find(_ request: RunRequest, most: Int = .max, in table: borrowing FrameTable) -> Int? {
    let order = max(ceilingLog2(request.count), floorLog2(request.alignment))
    for rank in 0..<FrameZone.count {
      let zone = FrameZone(rank: rank)
      guard Int(zone.start.rawValue) + request.count <= request.end else { continue }
      var orders = order < Self.orderCount ? orders(in: zone) & (.max << UInt32(order)) : 0
      let isWhollyBelow = zone.end(frameCount: end) <= request.end
      while orders != 0 {
        var candidate = table.first(of: list(zone: zone, order: orders.trailingZeroBitCount))
        var left = most
        while let start = candidate, left > 0 {
          left -= 1
          if isWhollyBelow || Int(start.rawValue) + request.count <= request.end { return Int(start.rawValue) }
          candidate = table.next(after: start, in: list(zone: zone, order: orders.trailingZeroBitCount))
        }
        orders &= orders - 1
      }
    }
    return nil
  }

  /// As `find`, in adjacent free runs and in unaligned parts of them: finds the frames whenever there are any. It
  /// looks at every free run of a quarter of the length or more: n adjacent frames contain an aligned block of more
  /// than n/4, and that lies in one run.
  func findAcrossRuns(_ request: RunRequest, in table: borrowing FrameTable) -> Int? {
    let leastOrder = max(floorLog2(request.count) - 1, 0)
    for rank in 0..<FrameZone.count {
      let zone = FrameZone(rank: rank)
      var orders = orders(in: zone) & (.max << UInt32(leastOrder))
      while orders != 0 {
        let order = orders.trailingZeroBitCount
        var candidate = table.first(of: list(zone: zone, order: order))
        while let head = candidate {
          if let start = findAround(head, order: order, request, in: table) { return start }
          candidate = table.next(after: head, in: list(zone: zone, order: order))
        }
        orders &= orders - 1
      }
    }
    return nil
  }

  /// Looks for the request in the free frames on both sides of a free run, no further than the frames asked for reach
  /// when they share one with it.
  private func findAround(
    _ head: FrameNumber,
    order: Int,
    _ request: RunRequest,
    in table: borrowing FrameTable
  ) -> Int? {
    let first = Int(head.rawValue)
    var start = first
    while first - start < request.count, let run = freeRun(containing: start - 1, in: table) {
      start = Int(run.start.rawValue)
    }
    var end = first + (1 << order)
    while end - first < request.count + (1 << order), let run = freeRun(containing: end, in: table) {
      end += run.count
    }
    let aligned = (start + request.alignment - 1) & ~(request.alignment - 1)
    return aligned + request.count <= min(end, request.end) ? aligned : nil
  }

  /// The free run that a frame is in, if it is in one; `index` may lie outside the pool.
  func freeRun(containing index: Int, in table: borrowing FrameTable) -> FrameRun? {
    guard index > 0, index < end else { return nil }
    let frame = FrameNumber(UInt32(index))
    if table[frame].state == .freeHead { return FrameRun(start: frame, count: 1 << Int(table[frame].order)) }
    guard table[frame].state == .interior else { return nil }
    for order in 1..<Self.orderCount {
      let head = FrameNumber(frame.rawValue & (.max << UInt32(order)))
      if table[head].state == .freeHead, Int(table[head].order) >= order {
        return FrameRun(start: head, count: 1 << Int(table[head].order))
      }
    }
    preconditionFailure("a frame inside a free run that has no head")
  }
}
