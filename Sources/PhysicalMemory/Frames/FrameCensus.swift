// The use of each frame, and the frames of contents: for the simulation, which predicts placements from it.

package import GuestMemory

/// The use of a frame, as far as a placement is concerned.
package enum FrameUse: UInt8, Sendable {
  case free
  /// Holds a content that may be moved.
  case movable
  /// Its pin, or a transfer on it, has not ended.
  case pinned
  case placed
  case table
  /// Free, in the area for page tables.
  case spare
  case reserved
  /// Taken by an operation under way.
  case busy
}

extension PhysicalMemoryServer {
  /// The use of every frame. Expired pins do not count, except those with a transfer under way.
  package func frameUses() -> [FrameUse] {
    withState { state in
      var uses = (0..<state.pool.count).map { state.use(of: $0) }
      let now = state.events.now
      for index in uses.indices {
        let pinned = state.pins[FrameNumber(UInt32(index))]
        if pinned.isPinned, pinned.pin.deadline > now || pinned.transfers > 0 { uses[index] = .pinned }
      }
      return uses
    }
  }

  /// The frames of the contents that ids of a task's own container name, in use or released; nil: no frame.
  package func frames(_ task: TaskSlot, _ handle: UInt32, _ ids: [UInt32]) -> [FrameNumber?] {
    withState { state in
      guard case .container(let container) = state.tasks[task].handles[Handle(handle)] else {
        return ids.map { _ in nil }
      }
      return ids.map { state.frame(container.slot, FrameID($0)) }
    }
  }

  /// The frames of an image's pages from the file.
  package func frames(_ image: ImageNumber) -> [FrameNumber?] {
    withState { state in
      let pages = state.images[image].segments.reduce(0) { $0 + $1.filePages }
      return (0..<UInt32(pages)).map { state.frame(state.images[image].container, FrameID($0)) }
    }
  }

  /// Blocks in stock from which superpages can be made.
  package var blocksInStock: Int {
    withState { state in
      state.blocks.blocks.count {
        state.pool.isFreeAndZero(FrameRun(start: $0, count: BlockStock.framesPerBlock))
      }
    }
  }

  /// Freed frames that wait for a grace period (GracePeriod.swift).
  package var waitingFrames: Int { withState { $0.pool.waitingCount } }

  /// The first frame of the policy buffer; nil: there is no buffer.
  package var policyBufferFrame: FrameNumber? {
    withState { state in state.policy.buffer.flatMap { state.frame($0.slot, 0) } }
  }
}

extension ServerState {
  fileprivate func use(of index: Int) -> FrameUse {
    let record = pool.records[FrameNumber(UInt32(index))]
    switch record.state {
    case .loose, .stocked, .freeHead, .waiting: return .free
    case .interior: return index < pool.runs.end ? .free : .spare
    case .spare: return .spare
    case .inUse: return record.flags.contains(.placed) ? .placed : .movable
    case .table: return .table
    case .reserved: return .reserved
    case .zeroing, .isolated: return .busy
    }
  }

  fileprivate func frame(_ container: ContainerSlot, _ id: FrameID) -> FrameNumber? {
    let word = containers[container].frames[id]
    let content = word.content ?? word.softReference.map { softReferences[$0].contentNumber }
    return content.map { contents[$0].frame }
  }
}
