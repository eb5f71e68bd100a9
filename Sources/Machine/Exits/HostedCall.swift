// Calls that use the task's console, the clock or the machine's devices.

internal import CGuestABI
internal import KVM
internal import PhysicalMemory

/// A call that the machine carries out for a task.
struct HostedCall {
  let machine: Machine
  let task: GuestTask
  let arguments: CallArguments

  /// pm_clock_us.
  func clock() throws(CallFailure) -> CallProgress {
    try store(monotonicNanoseconds() / 1000, at: arguments.words.0)
    return .done
  }

  // MARK: Devices (R19, R22)

  func deviceInfo() throws(CallFailure) -> CallProgress {
    let bits = try machine.devices.addressBits(number)
    try store(UInt64(PM_DEVICE_DISK) | UInt64(bits) << 32, at: arguments.words.1)
    return .done
  }

  func deviceClaim() throws(CallFailure) -> CallProgress {
    try machine.devices.claim(driver, number)
    return .done
  }

  func deviceRelease() throws(CallFailure) -> CallProgress {
    try machine.devices.release(driver, number, wait: wait)
    return .done
  }

  func deviceRead() throws(CallFailure) -> CallProgress {
    let value = try machine.devices.read(driver, number, offset)
    let bytes = InlineArray<4, UInt8> { UInt8(truncatingIfNeeded: value >> UInt32(8 * $0)) }
    try machine.server.writeMemory(task.slot, GuestAddress(arguments.words.2), bytes.span)
    return .done
  }

  func deviceWrite() throws(CallFailure) -> CallProgress {
    let value = UInt32(truncatingIfNeeded: arguments.words.2)
    try machine.devices.write(driver, number, offset, value, wait: wait)
    return .done
  }

  private var driver: TaskReference { TaskReference(slot: task.slot, id: task.id) }
  private var number: UInt32 { UInt32(truncatingIfNeeded: arguments.words.0) }
  private var offset: UInt32 { UInt32(truncatingIfNeeded: arguments.words.1) }

  private func wait(_ isDone: () -> Bool) throws(CallFailure) { try task.wait(machine.waiting, until: isDone) }

  private func store(_ word: UInt64, at address: UInt64) throws(CallFailure) {
    let bytes = InlineArray<8, UInt8> { UInt8(truncatingIfNeeded: word >> UInt64(8 * $0)) }
    try machine.server.writeMemory(task.slot, GuestAddress(address), bytes.span)
  }
}
