// The search for contiguous frames by alignment, address limit or exact position.

internal import GuestMemory

/// A request for adjacent frames.
struct RunRequest: BitwiseCopyable {
  /// In frames, at least 1.
  var count: Int
  /// The first frame is a multiple of this power of two.
  var alignment: Int
  /// The end of the run is at this frame or below.
  var end: Int
}

extension FreeRuns {
  /// The first frame of a part of one free run that serves the request. Costs one bit scan in a zone entirely below the
  /// limit; in the zone that contains the limit, tries long enough runs one by one, up to `most` of each length.
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

  /// As `find`, but also in adjacent free runs and unaligned parts of them: finds the frames whenever they exist.
  /// Visits every free run of at least a quarter of the length: n adjacent frames contain an aligned block of more than
  /// n/4, which is within one run.
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

  /// Looks for the request around a free run, no further on either side than frames that share a match with it.
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

  /// The free run that contains a frame, if any; `index` may be outside the pool.
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
