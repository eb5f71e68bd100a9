// Access to a task's memory on its behalf: pointers in calls, arguments, backtraces. Always through the task's own
// mappings, page by page, with the task's own rights (PM_EFAULT otherwise).

internal import CGuestABI
internal import GuestMemory

extension ServerState {
  /// The frame behind the page of an address, filled in if necessary.
  /// - Throws: `.fault` where the task itself could not make this access, `.waitForFrames` where it would wait.
  private mutating func frame(
    _ task: TaskSlot, _ address: GuestAddress, _ access: Access
  ) throws(CallFailure) -> FrameNumber {
    let page = address.page
    if let leaf = spaces.mappedPage(task, page), leaf.rights.contains(access.right) { return leaf.frame }
    // Do not fill in pages that the task's pm_return_pages handler is unmapping.
    if isForAnother, tasks[task].unmapping?.contains(page) ?? false { throw .fault }
    let outcome = serveFault(task, page, access)
    // Frames released by this step are available in the next one.
    if outcome == .waitForFrames || outcome == .noMemory && !mayTakeAnother { throw .waitForFrames }
    guard case .served = outcome else {
      if !isForAnother { tasks[task].pointerFault = (address, access, outcome) }
      throw .fault
    }
    guard let leaf = spaces.mappedPage(task, page) else { throw .fault }
    return leaf.frame
  }

  /// Accesses the memory of tasks that wait, on behalf of the task that makes a call. Makes no request in their names,
  /// since no task would wait for it: where a frame is missing they get PM_EFAULT. So they never see `.waitForFrames`.
  mutating func forAnother<Result>(
    _ body: (inout ServerState) throws(CallFailure) -> Result
  ) throws(ServerError) -> Result {
    isForAnother = true
    defer { isForAnother = false }
    do throws(CallFailure) {
      return try body(&self)
    } catch {
      switch error {
      case .error(let error): throw error
      case .waitForFrames, .stopped: throw .fault
      }
    }
  }

  static func isUserRange(_ address: GuestAddress, _ count: Int) -> Bool {
    count >= 0 && address.rawValue >= PM_USER_START && address.rawValue <= PM_USER_END
      && UInt64(count) <= PM_USER_END - address.rawValue
  }

  /// Splits a byte range at page boundaries, and stops at the first page that cannot be had.
  private mutating func forEachPage(
    _ task: TaskSlot, _ address: GuestAddress, _ count: Int, _ access: Access,
    _ body: (_ frame: FrameNumber, _ offset: Int, _ bytes: Range<Int>) -> Void
  ) throws(CallFailure) {
    guard Self.isUserRange(address, count) else { throw .fault }
    var done = 0
    while done < count {
      let at = address.advanced(by: done)
      let offset = at.offsetInPage
      let length = min(count - done, 4096 - offset)
      body(try frame(task, at, access), offset, done..<(done + length))
      done += length
    }
  }

  /// Fills `buffer` from the task's memory.
  mutating func readMemory(_ task: TaskSlot, _ address: GuestAddress, into buffer: inout [UInt8]) throws(CallFailure) {
    let memory = memory
    try forEachPage(task, address, buffer.count, .read) { frame, offset, bytes in
      var whole = buffer.mutableSpan
      var part = whole._mutatingExtracting(bytes)
      memory.read(frame, at: offset, into: &part)
    }
  }

  /// Writes `bytes` to the task's memory: all or none.
  mutating func writeMemory(_ task: TaskSlot, _ address: GuestAddress, _ bytes: Span<UInt8>) throws(CallFailure) {
    try checkWritable(task, address, bytes.count)
    let memory = memory
    try forEachPage(task, address, bytes.count, .write) { frame, offset, range in
      memory.write(frame, at: offset, bytes.extracting(range))
    }
  }

  /// Checks that a result can be stored, before its call changes anything.
  mutating func checkWritable(_ task: TaskSlot, _ address: GuestAddress, _ count: Int) throws(CallFailure) {
    try forEachPage(task, address, count, .write) { _, _, _ in }
  }

  mutating func checkReadable(_ task: TaskSlot, _ address: GuestAddress, _ count: Int) throws(CallFailure) {
    try forEachPage(task, address, count, .read) { _, _, _ in }
  }

  // MARK: Small values in a task's memory

  mutating func loadCount(_ task: TaskSlot, _ address: GuestAddress) throws(CallFailure) -> UInt32 {
    try checkWritable(task, address, 4)
    var bytes = [UInt8](repeating: 0, count: 4)
    try readMemory(task, address, into: &bytes)
    return bytes.reversed().reduce(0) { $0 << 8 | UInt32($1) }
  }

  mutating func store(_ value: UInt32, _ task: TaskSlot, _ address: GuestAddress) throws(CallFailure) {
    let bytes = InlineArray<4, UInt8> { UInt8(truncatingIfNeeded: value >> UInt32(8 * $0)) }
    try writeMemory(task, address, bytes.span)
  }

  mutating func store(_ words: [UInt64], _ task: TaskSlot, _ address: GuestAddress) throws(CallFailure) {
    let bytes = words.flatMap { word in (0..<8).map { UInt8(truncatingIfNeeded: word >> UInt64(8 * $0)) } }
    try writeMemory(task, address, bytes.span)
  }

  mutating func store(_ handle: Handle, _ task: TaskSlot, _ address: GuestAddress) throws(CallFailure) {
    try store(handle.rawValue, task, address)
  }
}
