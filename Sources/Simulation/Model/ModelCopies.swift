// The naive model of logical copies: read all sources, then write all destinations.

internal import CGuestABI
internal import GuestMemory
internal import PhysicalMemory

/// The error of a copy, and the id that caused it, if one did.
struct ModelCopyError: Error {
  let error: CallFailure
  var id: UInt32?
}

/// The ids of one side, in a call's two forms.
enum ModelIDs {
  case from(UInt32)
  case array(UInt64)
}

extension Model {
  mutating func load(_ task: ModelTask, _ ids: ModelIDs, _ count: UInt32) throws(CallFailure) -> [UInt32] {
    switch ids {
    case .from(let start):
      // More ids than can be in use: the rest has no effect.
      let ids = try Self.range(start, count)
      return Array(ids.prefix(mostIDs))
    case .array(let address):
      guard count > 0, count <= PM_FRAMES_MAXIMUM else { throw .invalid }
      return try readWords(task, address, Int(count))
    }
  }

  /// Exceeds the ids in use of any container and the frames of any task.
  var mostIDs: Int { max(4096, world.frames) }

  mutating func copy(
    _ task: ModelTask, _ source: UInt32, _ sourceIDs: ModelIDs, _ destination: UInt32, _ destinationIDs: ModelIDs,
    count: UInt32, frameError: UInt64
  ) throws(CallFailure) {
    let from = try load(task, sourceIDs, count)
    let to = try load(task, destinationIDs, count)
    if frameError != 0 { try check(task, frameError, 4, .write) }
    do throws(ModelCopyError) {
      try copy(task, source, from, destination, to, count: Int(count))
    } catch {
      if frameError != 0, let id = error.id { try writeWord(task, frameError, id) }
      throw error.error
    }
  }

  mutating func copy(
    _ task: ModelTask, _ source: UInt32, _ sourceIDs: [UInt32], _ destination: UInt32, _ destinationIDs: [UInt32],
    count: Int
  ) throws(ModelCopyError) {
    let from: ModelContainer
    let to: (it: ModelContainer, epoch: Int?)
    do throws(CallFailure) {
      from = try container(task, source).it
      to = try container(task, destination)
    } catch {
      throw ModelCopyError(error: error)
    }
    for id in sourceIDs where from.frames[id] == nil { throw ModelCopyError(error: .noEntry, id: id) }
    for id in sourceIDs where isPinned(from, id) { throw ModelCopyError(error: .busy, id: id) }
    for id in destinationIDs where isPinned(to.it, id) { throw ModelCopyError(error: .busy, id: id) }
    if to.epoch != nil {
      for id in destinationIDs where to.it.frames[id] == nil { throw ModelCopyError(error: .noEntry, id: id) }
    } else {
      let left = headroom(task, extra: false)
      var fresh: Set<UInt32> = []
      for id in destinationIDs where to.it.frames[id] == nil {
        fresh.insert(id)
        if fresh.count > left { throw ModelCopyError(error: .noMemory, id: id) }
      }
      do throws(CallFailure) { try charge(task, fresh.count) } catch { throw ModelCopyError(error: error) }
    }
    let frames = sourceIDs.map { from.frames[$0] }
    for (id, frame) in zip(destinationIDs, frames) { set(to.it, id, frame) }
  }

  mutating func releaseData(_ task: ModelTask, _ handle: UInt32, at address: UInt64, _ count: UInt32)
    throws(CallFailure)
  {
    let ids = try load(task, .array(address), count)
    let container = try ownContainer(task, handle)
    for id in ids where container.frames[id] == nil { throw .noEntry }
    for id in ids {
      if case .content(let content) = container.frames[id], content.sharers > 1 { set(container, id, .empty) }
    }
  }
}
