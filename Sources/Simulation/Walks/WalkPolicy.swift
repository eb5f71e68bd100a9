// Policy in a walk: the calls, and the comparison of the buffer with the model's.

internal import GuestMemory
internal import PhysicalMemory

extension Walk {
  func performPolicy(_ call: Call, _ task: ModelTask, _ label: Int) throws {
    let slot = task.slot
    switch call {
    case .getControl(let result):
      let error = attempt { () throws(CallFailure) in try server.getControl(slot, result: result) }
      try same(
        error, attempt { () throws(CallFailure) in try model.getControl(task, HandleName(label), result: result) })
      if error == nil { try load(task, result, 4) }
    case .getPolicyBuffer(let handle, let address, let result):
      let handle = number(handle)
      let error = attempt { () throws(CallFailure) in
        try server.getPolicyBuffer(slot, handle, address: address, result: result)
      }
      let expected = attempt { () throws(CallFailure) in
        try model.getPolicyBuffer(task, handle, at: address, result: result)
      }
      try same(error, expected)
      if error == nil { try load(task, result, 4) }
    case .setPolicy(let address, let entry, let isDirect):
      try setPolicy(task, address, entry, isDirect: isDirect)
    case .policyCommit(let handle):
      let handle = number(handle)
      let error = attempt { () throws(CallFailure) in try server.commitPolicy(slot, handle) }
      try same(error, attempt { () throws(CallFailure) in try model.commitPolicy(task, handle) })
    default: break
    }
  }

  private func setPolicy(_ task: ModelTask, _ address: UInt64, _ entry: PolicyArgument, isDirect: Bool) throws {
    let start = address &+ UInt64(entry.slot) * UInt64(ModelPolicy.entryBytes)
    var words = [entry.guaranteed, entry.extra, entry.swapQuota, entry.garbage]
    // Includes the fields that the server writes.
    if entry.garbage != 0 { words = [UInt64](repeating: entry.garbage, count: 4) + words }
    let bytes = words.flatMap(littleEndian)
    let target = entry.garbage == 0 ? start &+ 32 : start
    guard isDirect else {
      try store(task, target, bytes)
      return
    }
    let error = attempt { () throws(CallFailure) in try server.writeMemory(task.slot, target, bytes.span) }
    try same(error, attempt { () throws(CallFailure) in try model.write(task, target, bytes) })
    // The read reveals the buffer's frame.
    if error == nil { try load(task, target, 8) }
  }

  /// Compares every byte of the buffer once its frame is known.
  func checkPolicyBuffer() throws {
    guard let content = model.policy.content else { return }
    let bytes = content.frame.map { machine.bytes($0) }
    let wrong = model.noteAllocated(
      bytes.map { bytes in { longWord(bytes, Int($0.rawValue) * ModelPolicy.entryBytes + 8) } })
    if let wrong { throw fail(wrong) }
    guard let bytes, bytes != content.bytes else { return }
    let index = bytes.indices.first { bytes[$0] != content.bytes[$0] } ?? 0
    throw fail("byte \(index) of the policy buffer is \(bytes[index]), not \(content.bytes[index])")
  }
}
