// Names of endpoints, by which tasks find each other.

internal import CGuestABI
internal import GuestMemory

/// The registered names, and the tasks that wait for one.
struct NameTable: ~Copyable {
  /// The maximum number of names; more get PM_ENOMEM.
  static let capacity = 4096

  /// By bytes: strings that look alike are different names.
  private var endpoints: [[UInt8]: EndpointReference] = [:]
  /// Tasks that wait for the registration of a name.
  private(set) var waiting: [Waiter] = []

  var isFull: Bool { endpoints.count >= Self.capacity }

  subscript(_ name: [UInt8]) -> EndpointReference? { endpoints[name] }

  mutating func insert(_ name: [UInt8], _ endpoint: EndpointReference) { endpoints[name] = endpoint }

  mutating func remove(_ name: [UInt8]) { endpoints[name] = nil }

  mutating func wait(_ waiter: Waiter) { waiting.append(waiter) }
  mutating func stopWaiting(_ waiter: Waiter) { waiting.removeAll { $0 == waiter } }
}

extension ServerState {
  /// Reads a null-terminated name from the task's memory.
  /// - Throws: `.invalid` when it is empty or too long.
  private mutating func loadName(_ task: TaskSlot, _ address: GuestAddress) throws(CallFailure) -> [UInt8] {
    var bytes: [UInt8] = []
    while bytes.count <= PM_NAME_MAXIMUM {
      // Read up to the end of each page only: the memory behind the name may be unmapped.
      let at = GuestAddress(address.rawValue &+ UInt64(bytes.count))
      let part = min(Int(PM_NAME_MAXIMUM) + 1 - bytes.count, 4096 - at.offsetInPage)
      var read = [UInt8](repeating: 0, count: part)
      try readMemory(task, at, into: &read)
      if let end = read.firstIndex(of: 0) {
        bytes += read[..<end]
        guard !bytes.isEmpty else { throw .invalid }
        return bytes
      }
      bytes += read
    }
    throw .invalid
  }

  /// Registers an endpoint under the name at `address`, and wakes the tasks that wait for it.
  /// - Throws: `.invalid` for a bad name, or a handle without the receive right; `.exists` when the name is taken,
  ///   `.noMemory` when the table is full, `.fault` for a bad address.
  mutating func registerName(_ task: TaskSlot, _ address: GuestAddress, _ handle: Handle) throws(CallFailure) {
    let name = try loadName(task, address)
    guard case .endpoint(let reference, mayReceive: true) = tasks[task].handles[handle], isLive(reference)
    else { throw .invalid }
    guard names[name] == nil else { throw .exists }
    guard !names.isFull else { throw .noMemory }
    names.insert(name, reference)
    endpoints[reference.slot].names.append(name)
    for waiter in names.waiting {
      guard case .name(name, let result) = wait(waiter) else { continue }
      names.stopWaiting(waiter)
      do throws(ServerError) {
        try forAnother { (state) throws(CallFailure) in try state.giveEndpoint(waiter.task, reference, result) }
        finish(waiter, nil)
      } catch {
        finish(waiter, error)
      }
    }
  }

  /// Makes a handle to call the endpoint and stores it in the task's memory.
  private mutating func giveEndpoint(
    _ task: TaskSlot, _ reference: EndpointReference, _ result: GuestAddress
  ) throws(CallFailure) {
    try checkWritable(task, result, 4)
    guard let handle = tasks[task].handles.insert(.endpoint(reference, mayReceive: false)) else {
      throw .noMemory
    }
    try store(handle, task, result)
  }

  /// Looks up a name and stores a handle of its endpoint at `result`.
  /// - Throws: `.noEntry` when it is not registered and the call may not wait, `.invalid` for a bad name, `.noMemory`
  ///   when the handle table is full, `.fault` for a bad address.
  mutating func lookUpName(
    _ waiter: Waiter, _ address: GuestAddress, result: GuestAddress, mayWait: Bool
  ) throws(CallFailure) -> WaitOutcome {
    let task = waiter.task
    let name = try loadName(task, address)
    try checkWritable(task, result, 4)
    if let reference = names[name] {
      try giveEndpoint(task, reference, result)
      return .finished(nil)
    }
    guard mayWait else { throw .noEntry }
    setWait(waiter, .name(name, address: result))
    names.wait(waiter)
    return .waiting
  }
}
