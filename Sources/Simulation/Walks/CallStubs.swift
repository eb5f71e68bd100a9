// Calls as a program's library makes them: one function each, which puts the arguments into registers. For walks and
// unit tests. Each makes one attempt: the caller handles waits for frames.

package import PhysicalMemory

extension PhysicalMemoryServer {
  @discardableResult
  private func make(
    _ number: ServerCallNumber, for task: TaskSlot, at level: WaitLevel = .task, _ arguments: UInt64...
  ) throws(CallFailure) -> WaitOutcome {
    func argument(_ index: Int) -> UInt64 { index < arguments.count ? arguments[index] : 0 }
    let registers = CallArguments(argument(0), argument(1), argument(2), argument(3), argument(4), argument(5))
    switch try attempt(number, registers, for: task, at: level) {
    case .finished(let error): return .finished(error)
    case .waits: return .waiting
    }
  }

  // MARK: Containers

  package func createContainer(_ task: TaskSlot, result: UInt64) throws(CallFailure) {
    try make(.containerCreate, for: task, result)
  }

  package func destroyContainer(_ task: TaskSlot, _ container: UInt32) throws(CallFailure) {
    try make(.containerDestroy, for: task, UInt64(container))
  }

  package func allocate(
    _ task: TaskSlot, _ container: UInt32, start: UInt32, countAddress: UInt64, flags: UInt32
  ) throws(CallFailure) {
    try make(.containerAllocate, for: task, UInt64(container), UInt64(start), countAddress, UInt64(flags))
  }

  package func deallocate(
    _ task: TaskSlot, _ container: UInt32, start: UInt32, countAddress: UInt64, flags: UInt32
  ) throws(CallFailure) {
    try make(.containerDeallocate, for: task, UInt64(container), UInt64(start), countAddress, UInt64(flags))
  }

  package func allocatePlaced(
    _ task: TaskSlot, _ container: UInt32, start: UInt32, countAddress: UInt64, flags: UInt32, placement: UInt64
  ) throws(CallFailure) {
    try make(
      .containerAllocatePlaced, for: task, UInt64(container), UInt64(start), countAddress, UInt64(flags), placement)
  }

  /// The first frames of a new container.
  package enum InitialFrames {
    case fresh
    /// Copies of these frames of another container, numbered from 0.
    case copies(source: UInt32, FrameIDs)
  }

  /// The ids of one side of a copy.
  package enum FrameIDs {
    case from(UInt32)
    /// The address of an array of ids.
    case array(UInt64)
  }

  /// - Parameter weakResult: where the weak capability goes; 0: the container is not shared.
  package func createContainer(
    _ task: TaskSlot, _ initial: InitialFrames, count: UInt32, remote: UInt32, result: UInt64, weakResult: UInt64
  ) throws(CallFailure) {
    let (count, remote) = (UInt64(count), UInt64(remote))
    switch initial {
    case .fresh: try make(.containerCreateWith, for: task, result, count, remote, weakResult)
    case .copies(let source, .from(let start)):
      try make(.containerCreateFrom, for: task, result, UInt64(source), UInt64(start), count, remote, weakResult)
    case .copies(let source, .array(let address)):
      try make(.containerCreateGather, for: task, result, UInt64(source), address, count, remote, weakResult)
    }
  }

  // MARK: Mapping

  package func map(
    _ task: TaskSlot, _ container: UInt32, start: UInt32, count: UInt32, address: UInt64, flags: UInt32
  ) throws(CallFailure) {
    try make(.containerMap, for: task, UInt64(container), UInt64(start), UInt64(count), address, UInt64(flags))
  }

  package func unmap(_ task: TaskSlot, address: UInt64, count: UInt32) throws(CallFailure) {
    try make(.unmap, for: task, address, UInt64(count))
  }

  package func sample(
    _ task: TaskSlot, address: UInt64, count: UInt32, flags: UInt32, result: UInt64
  ) throws(CallFailure) {
    try make(.sample, for: task, address, UInt64(count), UInt64(flags), result)
  }

  // MARK: Contents

  package func copy(
    _ task: TaskSlot, _ source: UInt32, _ sourceIDs: FrameIDs, _ destination: UInt32, _ destinationIDs: FrameIDs,
    count: UInt32, frameError: UInt64
  ) throws(CallFailure) {
    let (number, from, to): (ServerCallNumber, UInt64, UInt64) =
      switch (sourceIDs, destinationIDs) {
      case (.from(let from), .from(let to)): (.containerCopy, UInt64(from), UInt64(to))
      case (.from(let from), .array(let to)): (.containerCopyScatter, UInt64(from), to)
      case (.array(let from), .from(let to)): (.containerCopyGather, from, UInt64(to))
      case (.array(let from), .array(let to)): (.containerCopyScatterGather, from, to)
      }
    try make(number, for: task, UInt64(source), from, UInt64(destination), to, UInt64(count), frameError)
  }

  package func releaseData(
    _ task: TaskSlot, _ container: UInt32, frames: UInt64, count: UInt32
  ) throws(CallFailure) {
    try make(.releaseData, for: task, UInt64(container), frames, UInt64(count))
  }

  package func releasePages(
    _ task: TaskSlot, _ container: UInt32, frames: UInt64, count: UInt32
  ) throws(CallFailure) {
    try make(.releasePages, for: task, UInt64(container), frames, UInt64(count))
  }

  package func recoverPages(
    _ task: TaskSlot, _ container: UInt32, frames: UInt64, count: UInt32, frameError: UInt64
  ) throws(CallFailure) {
    try make(.recoverPages, for: task, UInt64(container), frames, UInt64(count), frameError)
  }

  package func expiredPages(
    _ task: TaskSlot, _ container: UInt32, frames: UInt64, count: UInt32, result: UInt64
  ) throws(CallFailure) {
    try make(.expiredPages, for: task, UInt64(container), frames, UInt64(count), result)
  }

  // MARK: Sharing

  package func share(_ task: TaskSlot, _ container: UInt32, remote: UInt32, result: UInt64) throws(CallFailure) {
    try make(.containerShare, for: task, UInt64(container), UInt64(remote), result)
  }

  package func revoke(_ task: TaskSlot, _ container: UInt32) throws(CallFailure) {
    try make(.containerRevoke, for: task, UInt64(container))
  }

  package func lock(_ task: TaskSlot, _ container: UInt32, microseconds: UInt64) throws(CallFailure) {
    try make(.containerLock, for: task, UInt64(container), microseconds)
  }

  package func unlock(_ task: TaskSlot, _ container: UInt32) throws(CallFailure) {
    try make(.containerUnlock, for: task, UInt64(container))
  }

  package func pin(
    _ task: TaskSlot, _ container: UInt32, start: UInt32, count: UInt32, microseconds: UInt64, physical: UInt64
  ) throws(CallFailure) {
    try make(.containerPin, for: task, UInt64(container), UInt64(start), UInt64(count), microseconds, physical)
  }

  package func unpin(_ task: TaskSlot, _ container: UInt32, start: UInt32, count: UInt32) throws(CallFailure) {
    try make(.containerUnpin, for: task, UInt64(container), UInt64(start), UInt64(count))
  }

  package func dropCapability(_ task: TaskSlot, _ handle: UInt32) throws(CallFailure) {
    try make(.capDrop, for: task, UInt64(handle))
  }

  // MARK: Messages

  package func createEndpoint(_ task: TaskSlot, result: UInt64) throws(CallFailure) {
    try make(.endpointCreate, for: task, result)
  }

  package func call(
    _ task: TaskSlot, _ endpoint: UInt32, message: UInt64, mayWait: Bool, at level: WaitLevel = .task
  ) throws(CallFailure) -> WaitOutcome {
    try make(.call, for: task, at: level, UInt64(endpoint), message, mayWait ? .max : 0)
  }

  package func receive(
    _ task: TaskSlot, _ endpoint: UInt32, message: UInt64, mayWait: Bool, at level: WaitLevel = .task
  ) throws(CallFailure) -> WaitOutcome {
    try make(.receive, for: task, at: level, UInt64(endpoint), message, mayWait ? .max : 0)
  }

  package func reply(_ task: TaskSlot, message: UInt64) throws(CallFailure) {
    try make(.reply, for: task, message)
  }

  package func replyAndReceive(
    _ task: TaskSlot, _ endpoint: UInt32, message: UInt64, mayWait: Bool, at level: WaitLevel = .task
  ) throws(CallFailure) -> WaitOutcome {
    try make(.replyReceive, for: task, at: level, UInt64(endpoint), message, mayWait ? .max : 0)
  }

  package func registerName(_ task: TaskSlot, name: UInt64, endpoint: UInt32) throws(CallFailure) {
    try make(.nameRegister, for: task, name, UInt64(endpoint))
  }

  package func lookUpName(
    _ task: TaskSlot, name: UInt64, result: UInt64, mayWait: Bool, at level: WaitLevel = .task
  ) throws(CallFailure) -> WaitOutcome {
    try make(.nameLookup, for: task, at: level, name, result, mayWait ? .max : 0)
  }

  // MARK: Policy

  package func getControl(_ task: TaskSlot, result: UInt64) throws(CallFailure) {
    try make(.getControl, for: task, result)
  }

  package func getPolicyBuffer(
    _ task: TaskSlot, _ control: UInt32, address: UInt64, result: UInt64
  ) throws(CallFailure) {
    try make(.getPolicyBuffer, for: task, UInt64(control), address, result)
  }

  package func commitPolicy(_ task: TaskSlot, _ control: UInt32) throws(CallFailure) {
    try make(.policyCommit, for: task, UInt64(control))
  }

  package func taskName(_ task: TaskSlot, _ control: UInt32, id: UInt64, result: UInt64) throws(CallFailure) {
    try make(.taskName, for: task, UInt64(control), id, result)
  }

  package func defragment(_ task: TaskSlot, _ control: UInt32, result: UInt64) throws(CallFailure) {
    try make(.defragment, for: task, UInt64(control), result)
  }

  // MARK: Not calls: the task's memory, and what a mapping shows

  package func readMemory(_ task: TaskSlot, _ address: UInt64, into buffer: inout [UInt8]) throws(CallFailure) {
    try readMemory(task, GuestAddress(address), into: &buffer)
  }

  package func writeMemory(_ task: TaskSlot, _ address: UInt64, _ bytes: Span<UInt8>) throws(CallFailure) {
    try writeMemory(task, GuestAddress(address), bytes)
  }

  package func checkReadable(_ task: TaskSlot, _ address: UInt64, _ count: UInt64) throws(CallFailure) {
    try checkReadable(task, GuestAddress(address), count)
  }

  package func mappingInformation(_ task: TaskSlot, address: UInt64) throws(CallFailure) -> MappingInformation {
    try mappingInformation(task, address: GuestAddress(address))
  }
}
