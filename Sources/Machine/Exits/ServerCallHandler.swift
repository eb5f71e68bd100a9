// Carrying out calls on behalf of the task that made them. The server checks everything before it changes anything;
// what is handled here is what concerns the task's vCPU, its console and the clock.

internal import CGuestABI
internal import CKVM
internal import KVM
internal import PhysicalMemory

extension VCPULoop {
  /// Does the call in the registers, and stores its result where the caller looks for it, if it comes back.
  mutating func handleCall() -> Continuation {
    guard let call = ServerCall.decode(cpu.registers) else { return answer(PM_EINVAL) }
    var hasWaited = false
    defer { if hasWaited { machine.server.endRequest(task.slot) } }
    while true {
      do throws(ServerError) {
        return try perform(call)
      } catch {
        if error == .fault, let continuation = deliverPointerFault() { return continuation }
        if error == .stopped, let end = endIfStopped() { return end }
        guard error == .waitForFrames else { return answer(error) }
        hasWaited = true
        if let end = waitForFrames() { return end }
      }
    }
  }

  private mutating func perform(_ call: ServerCall) throws(ServerError) -> Continuation {
    switch call {
    case .vcpu(let call): return perform(call)
    case .waiting(let call): return try perform(call)
    case .memory(let call): try perform(call)
    case .sharing(let call): try perform(call)
    case .placement(let call): try perform(call)
    case .message(let call): try perform(call)
    case .policy(let call): try perform(call)
    case .device(let call): try perform(call)
    }
    return answer(PM_OK)
  }

  private mutating func perform(_ call: VCPUCall) -> Continuation {
    switch call {
    case .null: return answer(PM_OK)
    case .exit(let status): return .end(.exited(status: UInt8(truncatingIfNeeded: status)))
    case .sleep(let microseconds):
      return goOnWaiting(HostWait(subject: .time, deadline: Self.deadline(microseconds)))
    case .onFault(let entry, let stackTop): return setFaultHandler(entry, stackTop)
    case .faultReturn(let status): return returnFromFaultHandler(status)
    case .onReturnPages(let entry, let stackTop): return setUpcallHandler(entry, stackTop)
    case .onInterrupt(let entry, let stackTop): return setInterruptHandler(entry, stackTop)
    case .waitForInterrupt(let microseconds):
      // The handler would have taken what the wait is for.
      guard upcall.interrupts.entry == 0 else { return answer(PM_EBUSY) }
      return goOnWaiting(HostWait(subject: .interrupt, deadline: Self.deadline(microseconds)))
    case .upcallReturn: return returnFromUpcall()
    }
  }

  /// Frames that the call needs are being taken back from other tasks. It has changed nothing, and is made again then.
  /// Upcalls wait as well.
  private mutating func waitForFrames() -> Continuation? {
    while case .waiting(let until) = machine.server.frameWait(task.slot) {
      _ = machine.waiting.wait(task.gate, until: until)
      if let end = endIfStopped() { return end }
    }
    return nil
  }

  mutating func answer(_ error: ServerError?) -> Continuation {
    guard let error else { return answer(PM_OK) }
    guard let number = error.answer else { return .end(.failed("a call ended without an answer")) }
    return answer(pm_error(number))
  }

  private mutating func perform(_ call: WaitingCall) throws(ServerError) -> Continuation {
    let server = machine.server
    switch call {
    case .call(let endpoint, let message, let time):
      return wait(try server.call(task.slot, endpoint, message: message, mayWait: time > 0, at: level), time)
    case .receive(let endpoint, let message, let time):
      return wait(try server.receive(task.slot, endpoint, message: message, mayWait: time > 0, at: level), time)
    case .replyAndReceive(let endpoint, let message, let time):
      return wait(try server.replyAndReceive(task.slot, endpoint, message: message, mayWait: time > 0, at: level), time)
    case .lookUpName(let name, let result, let time):
      return wait(try server.lookUpName(task.slot, name: name, result: result, mayWait: time > 0, at: level), time)
    }
  }

  private mutating func wait(_ outcome: WaitOutcome, _ microseconds: UInt64) -> Continuation {
    if case .finished(let error) = outcome { return answer(error) }
    return goOnWaiting(HostWait(subject: .answer, deadline: Self.deadline(microseconds)))
  }

  /// Nanoseconds of the monotonic clock; nil: never.
  static func deadline(_ microseconds: UInt64) -> UInt64? {
    let (nanoseconds, overflow) = microseconds.multipliedReportingOverflow(by: 1000)
    let now = monotonicNanoseconds()
    return overflow || nanoseconds > .max - now ? nil : now + nanoseconds
  }

  /// Puts the result where the caller looks for it.
  @inline(__always)
  mutating func answer(_ error: pm_error) -> Continuation {
    cpu.registers.rax = UInt64(error.rawValue)
    cpu.useChangedRegisters()
    return .resume
  }

  private func perform(_ call: MemoryCall) throws(ServerError) {
    let server = machine.server
    switch call {
    case .write(let address, let length): try writeToConsole(address, length)
    case .clock(let result):
      let now = monotonicNanoseconds() / 1000
      let bytes = InlineArray<8, UInt8> { UInt8(truncatingIfNeeded: now >> UInt64(8 * $0)) }
      try server.writeMemory(task.slot, result, bytes.span)
    case .taskInformation(let result):
      try writeWords(server.taskInformation(task.slot).words, result)
    case .createContainer(let result): try server.createContainer(task.slot, result: result)
    case .destroyContainer(let handle): try server.destroyContainer(task.slot, handle)
    case .allocate(let handle, let start, let countAddress, let flags):
      try server.allocate(task.slot, handle, start: start, countAddress: countAddress, flags: flags)
    case .deallocate(let handle, let start, let countAddress, let flags):
      try server.deallocate(task.slot, handle, start: start, countAddress: countAddress, flags: flags)
    case .map(let handle, let start, let count, let address, let flags):
      try server.map(task.slot, handle, start: start, count: count, address: address, flags: flags)
    case .unmap(let address, let count): try server.unmap(task.slot, address: address, count: count)
    case .mappingInformation(let address, let result):
      try writeWords(server.mappingInformation(task.slot, address: address).words, result)
    case .releaseData(let handle, let frames, let count):
      try server.releaseData(task.slot, handle, frames: frames, count: count)
    case .releasePages(let handle, let frames, let count):
      try server.releasePages(task.slot, handle, frames: frames, count: count)
    case .recoverPages(let handle, let frames, let count, let frameError):
      try server.recoverPages(task.slot, handle, frames: frames, count: count, frameError: frameError)
    case .expiredPages(let handle, let frames, let count, let result):
      try server.expiredPages(task.slot, handle, frames: frames, count: count, result: result)
    }
  }

  private func perform(_ call: SharingCall) throws(ServerError) {
    let server = machine.server
    switch call {
    case .createShared(let initial, let count, let remote, let result, let weak):
      try server.createContainer(
        task.slot, initial, count: count, remote: remote, result: result, weakResult: weak)
    case .copy(let source, let from, let destination, let to, let count, let frameError):
      try server.copy(task.slot, source, from, destination, to, count: count, frameError: frameError)
    case .share(let handle, let remote, let result):
      try server.share(task.slot, handle, remote: remote, result: result)
    case .revoke(let handle): try server.revoke(task.slot, handle)
    case .lock(let handle, let time): try server.lock(task.slot, handle, microseconds: time)
    case .unlock(let handle): try server.unlock(task.slot, handle)
    }
  }

  private func perform(_ call: PlacementCall) throws(ServerError) {
    let server = machine.server
    switch call {
    case .pin(let handle, let start, let count, let time, let physical):
      try server.pin(task.slot, handle, start: start, count: count, microseconds: time, physical: physical)
    case .unpin(let handle, let start, let count): try server.unpin(task.slot, handle, start: start, count: count)
    case .allocatePlaced(let handle, let start, let countAddress, let flags, let placement):
      try server.allocatePlaced(
        task.slot, handle, start: start, countAddress: countAddress, flags: flags, placement: placement)
    case .placementObstacle(let result):
      let obstacle = server.placementObstacle(task.slot)
      try writeWords([obstacle.address, UInt64(obstacle.kind.rawValue)], result)
    case .defragment(let handle, let result): try server.defragment(task.slot, handle, result: result)
    }
  }

  private func perform(_ call: MessageCall) throws(ServerError) {
    let server = machine.server
    switch call {
    case .createEndpoint(let result): try server.createEndpoint(task.slot, result: result)
    case .reply(let message): try server.reply(task.slot, message: message)
    case .registerName(let name, let endpoint): try server.registerName(task.slot, name: name, endpoint: endpoint)
    case .dropCapability(let handle): try server.dropCapability(task.slot, handle)
    }
  }

  private func perform(_ call: PolicyCall) throws(ServerError) {
    let server = machine.server
    switch call {
    case .getControl(let result): try server.getControl(task.slot, result: result)
    case .getPolicyBuffer(let handle, let address, let result):
      try server.getPolicyBuffer(task.slot, handle, address: address, result: result)
    case .commitPolicy(let handle): try server.commitPolicy(task.slot, handle)
    case .taskName(let handle, let id, let result): try server.taskName(task.slot, handle, id: id, result: result)
    }
  }

  private func perform(_ call: DeviceCall) throws(ServerError) {
    let devices = machine.devices
    let driver = TaskReference(slot: task.slot, id: task.id)
    let wait: BlockDevice.Wait = { [task, threads = machine.waiting] isDone throws(ServerError) in
      try task.wait(threads, until: isDone)
    }
    switch call {
    case .deviceInformation(let number, let result):
      let bits = try devices.addressBits(number)
      try writeWords([UInt64(PM_DEVICE_DISK) | UInt64(bits) << 32], result)
    case .claimDevice(let number): try devices.claim(driver, number)
    case .releaseDevice(let number): try devices.release(driver, number, wait: wait)
    case .readDevice(let number, let offset, let result):
      let value = try devices.read(driver, number, offset)
      let bytes = InlineArray<4, UInt8> { UInt8(truncatingIfNeeded: value >> UInt32(8 * $0)) }
      try machine.server.writeMemory(task.slot, result, bytes.span)
    case .writeDevice(let number, let offset, let value):
      try devices.write(driver, number, offset, value, wait: wait)
    }
  }

  private func writeWords(_ words: [UInt64], _ address: UInt64) throws(ServerError) {
    let bytes = words.flatMap { word in (0..<8).map { UInt8(truncatingIfNeeded: word >> UInt64(8 * $0)) } }
    try machine.server.writeMemory(task.slot, address, bytes.span)
  }
}

extension TaskInformation {
  /// As `struct pm_task_info` has them.
  var words: [UInt64] {
    [
      id.rawValue, UInt64(guaranteed), UInt64(allocated), UInt64(swapped), UInt64(available), UInt64(pressure),
    ]
  }
}

extension MappingInformation {
  /// As `struct pm_mapping` has them, two 32-bit members a word.
  var words: [UInt64] {
    [
      UInt64(container) | UInt64(frame) << 32, UInt64(rights.rawValue) | UInt64(requested.rawValue) << 32,
      physicalAddress,
    ]
  }
}
