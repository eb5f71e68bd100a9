// The machine's devices, by number, and the calls of their drivers.

internal import PhysicalMemory
internal import SystemPackage

/// The machine's devices. A device's number is its index.
struct Devices: Sendable {
  private let devices: [BlockDevice]

  /// The number of interrupt bits of a task.
  static let most = 64

  init(_ devices: [BlockDevice]) {
    precondition(devices.count <= Self.most)
    self.devices = devices
  }

  func start() throws(Errno) {
    for device in devices { try device.start() }
  }

  func stop() { for device in devices { device.stop() } }

  /// - Throws: `.noEntry` (PM_ENOENT) if there is no such device.
  private func device(_ number: UInt32) throws(CallFailure) -> BlockDevice {
    guard number < UInt32(devices.count) else { throw .noEntry }
    return devices[Int(number)]
  }

  func addressBits(_ number: UInt32) throws(CallFailure) -> Int { try device(number).addressBits }

  func claim(_ task: TaskReference, _ number: UInt32) throws(CallFailure) { try device(number).claim(task) }

  func release(_ task: TaskReference, _ number: UInt32, wait: BlockDevice.Wait) throws(CallFailure) {
    try device(number).release(task, wait: wait)
  }

  func read(_ task: TaskReference, _ number: UInt32, _ offset: UInt32) throws(CallFailure) -> UInt32 {
    try device(number).read(task, offset)
  }

  func write(
    _ task: TaskReference, _ number: UInt32, _ offset: UInt32, _ value: UInt32, wait: BlockDevice.Wait
  ) throws(CallFailure) {
    try device(number).write(task, offset, value, wait: wait)
  }

  /// Called when the task ends. Its devices are free when this returns, except one with a long request, which is freed
  /// when the request is over.
  func leave(_ task: TaskReference) {
    for device in devices { device.leave(task) }
  }
}
