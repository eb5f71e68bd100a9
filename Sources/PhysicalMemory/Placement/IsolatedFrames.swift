// Frames out of use while a placement or a move works on them.

internal import GuestMemory

extension ServerState {
  /// - Parameter owner: the slot of the task whose placement isolates it.
  mutating func isolate(_ frame: FrameNumber, for owner: UInt32) {
    let flags = pool.records[frame].flags
    pool.records[frame] = FrameRecord(state: .isolated, flags: flags)
    pool.records[frame].owner = owner
  }

  func isIsolated(_ frame: FrameNumber, _ task: TaskSlot) -> Bool {
    pool.records[frame].state == .isolated && pool.records[frame].owner == task.rawValue
  }

  /// Frees an isolated frame.
  mutating func releaseIsolated(_ frame: FrameNumber) {
    pool.give(FrameRun(start: frame, count: 1), contentIsZero: !pool.records[frame].isDirty)
  }

  func obstacle(at frame: FrameNumber) -> Obstacle {
    let record = pool.records[frame]
    var kind: Obstacle.Kind
    switch record.state {
    case .table, .spare, .interior: kind = .pageTable
    case .inUse: kind = record.flags.contains(.pinned) ? .pinned : .placed
    case .isolated: kind = .busy
    default: kind = .reserved
    }
    // A content may be in the area for page tables when no other frame is free; it is not placed there.
    if kind == .placed, pool.tableArea.frames.contains(Int(frame.rawValue)) { kind = .pageTable }
    return Obstacle(address: frame.address, kind: kind)
  }
}
