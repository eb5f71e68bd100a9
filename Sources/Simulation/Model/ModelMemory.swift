// The naive model of memory: the outcome of a task's access, and the server's accesses on its behalf.

internal import CGuestABI
internal import GuestMemory
internal import PhysicalMemory

extension Model {
  mutating func show(
    _ task: ModelTask, _ container: ModelContainer, _ id: UInt32, _ count: Int, at page: PageNumber,
    _ flags: MappingFlags, epoch: Int?, isInitial: Bool = false
  ) {
    for offset in 0..<UInt64(count) {
      task.mappings[page.rawValue + offset] = ModelMapping(
        container: container, id: id + UInt32(offset), flags: flags, epoch: epoch, isInitial: isInitial)
    }
  }

  func isGood(_ mapping: ModelMapping) -> Bool {
    mapping.container.isLive && (mapping.epoch == nil || mapping.epoch == mapping.container.epoch)
  }

  func currentLock(_ container: ModelContainer) -> (holder: TaskName, start: UInt64, deadline: UInt64)? {
    container.lock.flatMap { now < $0.deadline ? $0 : nil }
  }

  /// The outcome of an access: the content it reaches, or a fault.
  enum Landing {
    case content(ModelContent)
    case fault(FaultOutcome)
  }

  /// The outcome of an access, after all that it requires.
  mutating func access(_ task: ModelTask, _ page: PageNumber, _ access: Access) -> Landing {
    guard let mapping = task.mappings[page.rawValue] else { return .fault(.notMapped) }
    guard mapping.flags.effectiveRights.contains(access.flag) else { return .fault(.forbidden) }
    guard isGood(mapping) else { return .fault(.notMapped) }
    let container = mapping.container
    if container.owner == task.name, let lock = currentLock(container) {
      return .fault(.locked(until: lock.deadline))
    }
    do { try makeTables(task, page) } catch { return .fault(error == .waitForFrames ? .waitForFrames : .noMemory) }
    switch container.frames[mapping.id] {
    case nil: return .fault(.notMapped)
    case .content(let content):
      guard access == .write, content.sharers > 1 else { return .content(content) }
      guard mapping.flags.contains(.lazy) || mapping.flags.contains(.forceWrite) else { return .fault(.forbidden) }
      makePrivate(container, mapping.id)
    case .empty:
      makeResident(container, mapping.id)
    }
    guard case .content(let content) = container.frames[mapping.id] else { return .fault(.notMapped) }
    return .content(content)
  }

  mutating func makeResident(_ container: ModelContainer, _ id: UInt32) {
    guard case .empty = container.frames[id] else { return }
    set(container, id, .content(makeContent(ModelContent.zeros)))
  }

  // MARK: One page, accessed by the task

  mutating func store(_ task: ModelTask, _ address: UInt64, _ bytes: ArraySlice<UInt8>) -> FaultOutcome? {
    switch access(task, PageNumber(containing: address), .write) {
    case .fault(let outcome): return outcome
    case .content(let content):
      let start = Int(address & 4095)
      content.bytes.replaceSubrange(start..<start + bytes.count, with: bytes)
      return nil
    }
  }

  // MARK: Byte ranges, accessed by the server for the task

  /// Length of the range's part in its first page.
  static func firstPart(_ address: UInt64, _ count: Int) -> Int { min(count, 4096 - Int(address & 4095)) }

  /// Throws `.fault` (PM_EFAULT) if the task could not access all of it, `.waitForFrames` if it would wait.
  mutating func check(_ task: ModelTask, _ address: UInt64, _ count: Int, _ access: Access) throws(CallFailure) {
    guard address >= PM_USER_START, address <= PM_USER_END, UInt64(count) <= PM_USER_END - address else { throw .fault }
    var done = 0
    while done < count {
      let next = address + UInt64(done)
      if case .fault(let outcome) = self.access(task, PageNumber(containing: next), access) {
        if outcome == .waitForFrames { throw .waitForFrames }
        task.pointerFault = (next, access)
        throw .fault
      }
      done += Self.firstPart(next, count - done)
    }
  }

  mutating func read(_ task: ModelTask, _ address: UInt64, _ count: Int) throws(CallFailure) -> [UInt8] {
    try check(task, address, count, .read)
    var bytes: [UInt8] = []
    while bytes.count < count {
      let next = address + UInt64(bytes.count)
      guard case .content(let content) = access(task, PageNumber(containing: next), .read) else { throw .fault }
      let start = Int(next & 4095)
      bytes += content.bytes[start..<start + Self.firstPart(next, count - bytes.count)]
    }
    return bytes
  }

  /// Writes all bytes or none.
  mutating func write(_ task: ModelTask, _ address: UInt64, _ bytes: [UInt8]) throws(CallFailure) {
    try check(task, address, bytes.count, .write)
    var done = 0
    while done < bytes.count {
      let next = address + UInt64(done)
      let length = Self.firstPart(next, bytes.count - done)
      guard store(task, next, bytes[done..<done + length]) == nil else { throw .fault }
      done += length
    }
  }

  mutating func writeWord(_ task: ModelTask, _ address: UInt64, _ word: UInt32) throws(CallFailure) {
    try write(task, address, littleEndian(word))
  }

  mutating func readWords(_ task: ModelTask, _ address: UInt64, _ count: Int) throws(CallFailure) -> [UInt32] {
    let bytes = try read(task, address, count * 4)
    return (0..<count).map { word(bytes, $0 * 4) }
  }

  // MARK: What the machine reveals

  /// The server removed a leaf without need. It may forget the mapping.
  func forget(_ task: ModelTask, _ page: PageNumber) {
    guard !task.keepsMappings, task.mappings[page.rawValue]?.isInitial == false, !task.wait.needs(page) else { return }
    task.mappings[page.rawValue] = nil
  }

  /// Checks a leaf that the server wrote, and learns the frame from it.
  /// - Returns: a message if it is wrong.
  mutating func see(_ task: ModelTask, _ page: PageNumber, _ leaf: MappedPage) -> String? {
    guard let mapping = task.mappings[page.rawValue], isGood(mapping), mapping.container.frames[mapping.id] != nil
    else {
      return "a leaf for a page without a mapping"
    }
    // Happens only for regions other than that of the access.
    if (try? makeTables(task, page)) == nil { return "a leaf without a table" }
    // Fault-around fills in neighbours too, so they have a frame now.
    makeResident(mapping.container, mapping.id)
    guard case .content(let content) = mapping.container.frames[mapping.id] else { return nil }
    var rights = mapping.flags.effectiveRights
    if content.sharers > 1 { rights.remove(.write) }
    if !leaf.rights.isSubset(of: rights) { return "a leaf with rights \(leaf.rights.rawValue), not \(rights.rawValue)" }
    if let frame = content.frame, frame != leaf.frame {
      return "frame \(leaf.frame.rawValue) for a content that was in frame \(frame.rawValue)"
    }
    content.frame = leaf.frame
    return nil
  }
}

func littleEndian(_ word: UInt32) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: word >> UInt32(8 * $0)) } }
func littleEndian(_ word: UInt64) -> [UInt8] { (0..<8).map { UInt8(truncatingIfNeeded: word >> UInt64(8 * $0)) } }
func word(_ bytes: [UInt8], _ offset: Int) -> UInt32 {
  UInt32(bytes[offset]) | UInt32(bytes[offset + 1]) << 8 | UInt32(bytes[offset + 2]) << 16
    | UInt32(bytes[offset + 3]) << 24
}
func longWord(_ bytes: [UInt8], _ offset: Int) -> UInt64 {
  UInt64(word(bytes, offset)) | UInt64(word(bytes, offset + 4)) << 32
}
