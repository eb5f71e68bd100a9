// Copies, released frames, shared containers, locks and pins in a walk.

internal import CGuestABI
internal import GuestMemory
internal import PhysicalMemory

extension Walk {
  func performCopy(_ call: Call, _ task: ModelTask, _ label: Int) throws {
    let slot = task.slot
    switch call {
    case .copy(let source, let from, let destination, let to, let count, let frameError):
      let (source, destination) = (number(source), number(destination))
      try touch(task, frameError, 4)
      let (sourceIDs, modelSourceIDs) = try prepare(task, from)
      let (destinationIDs, modelDestinationIDs) = try prepare(task, to)
      let error = attempt { () throws(CallFailure) in
        try server.copy(slot, source, sourceIDs, destination, destinationIDs, count: count, frameError: frameError)
      }
      let expected = attempt { () throws(CallFailure) in
        try model.copy(
          task, source, modelSourceIDs, destination, modelDestinationIDs, count: count, frameError: frameError)
      }
      try same(error, expected)
      if frameError != 0, error != nil { try load(task, frameError, 4) }
    case .releaseData(let handle, let ids, let address):
      let handle = number(handle)
      try prepare(task, ids, address)
      let count = UInt32(ids.count)
      let error = attempt { () throws(CallFailure) in
        try server.releaseData(slot, handle, frames: address, count: count)
      }
      try same(error, attempt { () throws(CallFailure) in try model.releaseData(task, handle, at: address, count) })
    case .createFilled(let source, let ids, let count, let remote, let result, let weak):
      let (source, remote) = (number(source), number(remote))
      try touch(task, result, 4)
      try touch(task, weak, 4)
      var initial = PhysicalMemoryServer.InitialFrames.fresh
      var modelSource: (UInt32, ModelIDs)?
      if let ids {
        let (ids, modelIDs) = try prepare(task, ids)
        initial = .copies(source: source, ids)
        modelSource = (source, modelIDs)
      }
      let error = attempt { () throws(CallFailure) in
        try server.createContainer(slot, initial, count: count, remote: remote, result: result, weakResult: weak)
      }
      let expected = attempt { () throws(CallFailure) in
        try model.createFilled(
          task, (HandleName(label), HandleName(label, 1)), from: modelSource, count: count, remote: remote,
          result: result, weak: weak)
      }
      try same(error, expected)
      if error == nil { try load(task, result, 4) }
      if error == nil, weak != 0 { try load(task, weak, 4) }
    default: break
    }
  }

  func performRelease(_ call: Call, _ task: ModelTask) throws {
    let slot = task.slot
    switch call {
    case .releasePages(let handle, let ids, let address):
      let handle = number(handle)
      try prepare(task, ids, address)
      let count = UInt32(ids.count)
      let error = attempt { () throws(CallFailure) in
        try server.releasePages(slot, handle, frames: address, count: count)
      }
      try same(error, attempt { () throws(CallFailure) in try model.releasePages(task, handle, at: address, count) })
    case .recoverPages(let handle, let ids, let address, let frameError):
      let handle = number(handle)
      try touch(task, frameError, 4)
      try prepare(task, ids, address)
      let count = UInt32(ids.count)
      let error = attempt { () throws(CallFailure) in
        try server.recoverPages(slot, handle, frames: address, count: count, frameError: frameError)
      }
      let expected = attempt { () throws(CallFailure) in
        try model.recoverPages(task, handle, at: address, count, frameError: frameError)
      }
      try same(error, expected)
      if frameError != 0, error != nil { try load(task, frameError, 4) }
    case .expiredPages(let handle, let ids, let address, let result):
      let handle = number(handle)
      try touch(task, result, ids.count)
      try prepare(task, ids, address)
      let count = UInt32(ids.count)
      let error = attempt { () throws(CallFailure) in
        try server.expiredPages(slot, handle, frames: address, count: count, result: result)
      }
      let expected = attempt { () throws(CallFailure) in
        try model.expiredPages(task, handle, at: address, count, result: result)
      }
      try same(error, expected)
      if error == nil { try load(task, result, ids.count) }
    default: break
    }
  }

  func performSharing(_ call: Call, _ task: ModelTask, _ label: Int) throws {
    let slot = task.slot
    switch call {
    case .share(let handle, let remote, let result):
      let (handle, remote) = (number(handle), number(remote))
      let error = attempt { () throws(CallFailure) in
        try server.share(slot, handle, remote: remote, result: result)
      }
      let expected = attempt { () throws(CallFailure) in
        try model.share(task, HandleName(label), handle, remote: remote, result: result)
      }
      try same(error, expected)
      if error == nil { try load(task, result, 4) }
    case .revoke(let handle):
      let handle = number(handle)
      let error = attempt { () throws(CallFailure) in try server.revoke(slot, handle) }
      try same(error, attempt { () throws(CallFailure) in try model.revoke(task, handle) })
    case .lock(let handle, let time):
      let handle = number(handle)
      let error = attempt { () throws(CallFailure) in try server.lock(slot, handle, microseconds: time) }
      try same(error, attempt { () throws(CallFailure) in try model.lock(task, handle, microseconds: time) })
    case .unlock(let handle):
      let handle = number(handle)
      let error = attempt { () throws(CallFailure) in try server.unlock(slot, handle) }
      try same(error, attempt { () throws(CallFailure) in try model.unlock(task, handle) })
    case .pin(let handle, let start, let count, let time, let physical):
      try performPin(task, number(handle), start, count, time, physical)
    case .unpin(let handle, let start, let count):
      let handle = number(handle)
      let error = attempt { () throws(CallFailure) in try server.unpin(slot, handle, start: start, count: count) }
      try same(error, attempt { () throws(CallFailure) in try model.unpin(task, handle, start, count) })
    case .drop(let handle):
      let handle = number(handle)
      let error = attempt { () throws(CallFailure) in try server.dropCapability(slot, handle) }
      try same(error, attempt { () throws(CallFailure) in try model.drop(task, handle) })
    default: break
    }
  }

  func performPin(
    _ task: ModelTask, _ handle: UInt32, _ start: UInt32, _ count: UInt32, _ time: UInt64, _ physical: UInt64
  ) throws {
    if count < 100 { try touch(task, physical, Int(count) * 8) }
    let error = attempt { () throws(CallFailure) in
      try server.pin(task.slot, handle, start: start, count: count, microseconds: time, physical: physical)
    }
    var addresses: [UInt64] = []
    if error == nil {
      // The server chooses the frames, so the model reads their addresses.
      var bytes = [UInt8](repeating: 0, count: Int(count) * 8)
      _ = attempt { () throws(CallFailure) in try server.readMemory(task.slot, physical, into: &bytes) }
      addresses = (0..<Int(count)).map { longWord(bytes, $0 * 8) }
    }
    var wrong: String?
    let expected = attempt { () throws(CallFailure) in
      wrong = try model.pin(
        task, handle, start, count, microseconds: time, physical: physical, addresses: addresses)
    }
    try same(error, expected)
    if let wrong { throw fail(wrong) }
    if error == nil { try load(task, physical, Int(count) * 8) }
  }
}
