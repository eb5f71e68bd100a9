// The machine as a plain model: leaves and frames in arrays, and the worst processor that the architecture allows. It
// remembers every translation that it could have cached, from the moment a leaf is written until the frame is zapped
// (SDM volume 3, 4.10: a processor may cache at any time what the tables permit). Every operation of the server on a
// frame is checked against what such a processor could still do.

package import GuestMemory
package import PhysicalMemory

/// A page of one task's address space.
package struct Place: Hashable, Sendable, CustomStringConvertible {
  package let slot: TaskSlot
  package let page: PageNumber

  package init(_ slot: TaskSlot, _ page: PageNumber) {
    self.slot = slot
    self.page = page
  }

  package var description: String { "page \(String(page.rawValue, radix: 16)) of slot \(slot.rawValue)" }
}

/// An operation that the machine omits, to show that the simulation notices.
package enum Sabotage: Hashable, Sendable {
  case zaps, zeroing, copying, visits, settling
}

// SAFETY: only one thread at a time uses it: the one inside the server, which holds a lock, or the one that plays the
// tasks between its calls. `storage` lives as long as the object, and accesses to it never overlap.
@safe
package final class ModelMachine: MachineOperations, @unchecked Sendable {
  /// A closed space with more tables than this is freed; its tables wait for `releaseClosedSpaces`.
  package let tablesKept: Int
  private let sabotage: Sabotage?
  private let storage: UnsafeMutablePointer<ModelMachineState>

  /// - Parameter keepsLog: record which leaves are written, for `takeWritten`.
  package init(frameCount: Int = 1 << 14, tablesKept: Int = 16, keepsLog: Bool = false, sabotage: Sabotage? = nil) {
    self.sabotage = sabotage
    self.tablesKept = tablesKept
    unsafe storage = .allocate(capacity: 1)
    unsafe storage.initialize(to: ModelMachineState(frameCount: frameCount, keepsLog: keepsLog))
  }

  deinit {
    unsafe storage.deinitialize(count: 1)
    unsafe storage.deallocate()
  }

  private var state: ModelMachineState {
    @inline(__always) unsafeAddress { unsafe UnsafePointer(storage) }
    @inline(__always) unsafeMutableAddress { unsafe storage }
  }

  /// Violations so far, one sentence each.
  package var violations: [String] { state.violations }
  /// How often the server asked for zeroed frames.
  package var wishes: Int { state.wishes }
  /// Frames zapped since creation; repeated zaps count each time.
  package var framesZapped: Int { state.framesZapped }
  package var leafCount: Int { state.leafCount }
  package func leaf(_ slot: TaskSlot, _ page: PageNumber) -> MappedPage? { state.leaf(slot, page) }
  package func bytes(_ frame: FrameNumber) -> [UInt8] { state.memory.bytes(frame) }
  package func holds(_ frame: FrameNumber, _ bytes: [UInt8]) -> Bool { state.memory.holds(frame, bytes.span) }
  /// Tables of the spaces of ended tasks.
  package var keptTables: [FrameNumber] { state.keptTables }

  /// Appends the places whose leaves were written since the last call, possibly more than once.
  package func takeWritten(into places: inout [Place]) {
    places.removeAll(keepingCapacity: true)
    if !state.written.isEmpty { swap(&places, &state.written) }
  }

  /// Appends the places whose leaves were removed since the last call.
  package func takeEmptied(into places: inout [Place]) {
    places.removeAll(keepingCapacity: true)
    swap(&places, &state.emptied)
  }

  // MARK: Time and wake-ups

  package var now: UInt64 { state.now }
  package func advance(microseconds: UInt64) { state.now += microseconds * 1000 }
  package func advance(to time: UInt64) { state.now = max(state.now, time) }
  package func discard(_ run: FrameRun) { zero(run) }
  package func raiseUpcall(_ slot: TaskSlot) { state.asked.append(slot) }
  package func drop(_ slot: TaskSlot, missing: Int) { state.dropped.append(slot) }
  package func mustStop(_ slot: TaskSlot) -> Bool { state.mustStop(slot) }
  /// Tells the task to end: `mustStop` returns true after it has been asked this often.
  package func stop(_ slot: TaskSlot, afterSteps steps: Int) { state.stopping[slot] = steps }
  package func processorTime(_ slot: TaskSlot) -> UInt64 { state.processorTimes[slot] ?? .max }
  /// In nanoseconds. A task whose CPU time was never set counts as waiting.
  package func setProcessorTime(_ slot: TaskSlot, _ time: UInt64) { state.processorTimes[slot] = time }
  /// Slots asked for frames and slots dropped since the last call.
  package func takeAsked() -> (asked: [TaskSlot], dropped: [TaskSlot]) {
    defer {
      state.asked.removeAll(keepingCapacity: true)
      state.dropped.removeAll(keepingCapacity: true)
    }
    return (state.asked, state.dropped)
  }
  package func wake(_ slot: TaskSlot) { state.wake(slot) }
  /// Whether the task was woken since the last call.
  package func wasWoken(_ slot: TaskSlot) -> Bool { state.wasWoken(slot) }

  // MARK: Visits. During a visit a task may use a frame whose leaf has been removed since the visit began.

  package func visit(_ slot: TaskSlot) -> Visit? { sabotage == .visits ? nil : state.visit(slot) }
  package func hurry(_ visit: Visit) {
    state.hurries += 1
    if state.visit(visit.slot) == visit { state.leave(visit.slot) }
  }
  package func watchGracePeriods() { state.watches += 1 }

  package func enter(_ slot: TaskSlot) { state.enter(slot) }
  package func leave(_ slot: TaskSlot) { state.leave(slot) }
  /// Number of visits that were told to end soon.
  package var hurries: Int { state.hurries }
  /// Number of requests to watch grace periods.
  package var watches: Int { state.watches }

  // MARK: The processor

  /// Reads a byte as the task would; nil after a page fault.
  package func load(_ slot: TaskSlot, _ address: UInt64, _ access: Access = .read) -> UInt8? {
    var byte = InlineArray<1, UInt8>(repeating: 0)
    var span = byte.mutableSpan
    return load(slot, address, access, into: &span) ? byte[0] : nil
  }

  /// Writes a byte as the task would; false after a page fault.
  package func store(_ slot: TaskSlot, _ address: UInt64, _ byte: UInt8) -> Bool {
    let bytes = InlineArray<1, UInt8>(repeating: byte)
    return store(slot, address, bytes.span)
  }

  /// Reads bytes of one page as the task would; false after a page fault.
  package func load(
    _ slot: TaskSlot, _ address: UInt64, _ access: Access, into buffer: inout MutableSpan<UInt8>
  ) -> Bool {
    guard let frame = state.translate(slot, PageNumber(containing: address), access) else { return false }
    state.memory.read(frame, at: Int(address & 4095), into: &buffer)
    return true
  }

  /// Writes bytes of one page as the task would; false after a page fault.
  package func store(_ slot: TaskSlot, _ address: UInt64, _ bytes: Span<UInt8>) -> Bool {
    guard let frame = state.translate(slot, PageNumber(containing: address), .write) else { return false }
    state.memory.write(frame, at: Int(address & 4095), bytes)
    return true
  }

  // MARK: Address spaces. `takeTable` and `giveTable` call the server, which may call the machine: never under the
  // lock.

  package func openSpace(_ slot: TaskSlot, takeTable: () -> FrameNumber?) -> Int? {
    state.stopping[slot] = nil
    if let kept = state.reopen(slot) { return kept }
    guard let root = takeTable() else { return nil }
    state.open(slot, root: root)
    return 0
  }

  package func closeSpace(_ slot: TaskSlot, giveTable: (FrameNumber) -> Void) {
    state.close(slot, tablesKept: tablesKept)
  }

  package func releaseClosedSpaces(giveTable: (FrameNumber) -> Void) {
    for frame in state.takeClosed() { giveTable(frame) }
  }

  package func makeTables(_ slot: TaskSlot, for page: PageNumber, takeTable: () -> FrameNumber?) -> Bool {
    while let name = state.missingTable(slot, page) {
      guard let frame = takeTable() else { return false }
      state.link(slot, name, frame)
    }
    return true
  }

  // MARK: Leaves

  package func mappedPage(_ slot: TaskSlot, _ page: PageNumber) -> MappedPage? { leaf(slot, page) }

  /// As the machine fills leaves in; the model has no processor that would set more.
  package func pageUse(_ slot: TaskSlot, _ page: PageNumber) -> PageUse {
    guard let leaf = leaf(slot, page) else { return [] }
    return leaf.rights.contains(.write) ? [.present, .accessed, .dirty] : [.present, .accessed]
  }

  package func firstMapped(_ slot: TaskSlot, from page: PageNumber, to end: PageNumber) -> PageNumber? {
    state.firstLeaf(slot, from: page, to: end)
  }

  package func forEachLeaf(_ slot: TaskSlot, _ body: (PageNumber, MappedPage) -> Void) {
    state.forEachLeaf(slot, body)
  }

  package func absentRun(_ slot: TaskSlot, from page: PageNumber, limit: Int) -> Int {
    state.absentRun(slot, from: page, limit: limit)
  }

  package func map(_ slot: TaskSlot, _ page: PageNumber, frames: Span<FrameNumber>, rights: MappingFlags) {
    for index in frames.indices {
      split(slot, page.advanced(by: index), .unmapped)
      state.map(Place(slot, page.advanced(by: index)), MappedPage(frame: frames[index], rights: rights))
    }
  }

  package func unmap(_ slot: TaskSlot, _ page: PageNumber, _ cause: SplitCause) -> FrameNumber {
    split(slot, page, cause)
    state.noteSeen(slot, page)
    return state.unmap(Place(slot, page))
  }

  package func writeProtect(_ slot: TaskSlot, _ page: PageNumber) {
    split(slot, page, .copied)
    state.noteUnsettled(slot, page)
    state.writeProtect(Place(slot, page))
  }

  package func suspect(_ slot: TaskSlot, _ page: PageNumber) -> Bool {
    let entry = state.entry(slot, page)
    defer { if entry != 0 { state.entries[entry].isSuspected = true } }
    return state.entries[entry].isSuspected
  }

  // MARK: Superpages. The model's processor treats them as separate leaves.

  /// Superpages by their first pages.
  package var superpages: Set<Place> { state.superpages }
  /// Superpages made since creation.
  package var superpagesMade: Int { state.superpageCounts.current + state.superpageCounts.split }
  package var superpageCounts: SuperpageCounts { state.superpageCounts }

  package func superpage(_ slot: TaskSlot, _ page: PageNumber) -> MappedPage? {
    state.superpages.contains(Place(slot, page)) ? leaf(slot, page) : nil
  }

  package func mayPromote(_ slot: TaskSlot, _ page: PageNumber) -> Bool { true }

  package func mayMapSuperpage(_ slot: TaskSlot, _ page: PageNumber) -> Bool {
    state.entry(slot, page) == 0 || state.absentRun(slot, from: page, limit: 512) == 512
  }

  package func mapSuperpage(
    _ slot: TaskSlot, _ page: PageNumber, _ frame: FrameNumber, rights: MappingFlags, takeTable: () -> FrameNumber?
  ) -> Bool {
    guard makeTables(slot, for: page, takeTable: takeTable) else { return false }
    if !mayMapSuperpage(slot, page) { state.report("\(Place(slot, page)) becomes a superpage against its leaves") }
    for index in 0..<512 {
      state.map(
        Place(slot, page.advanced(by: index)), MappedPage(frame: frame.advanced(by: index), rights: rights))
    }
    return promote(slot, [page].span) == 1
  }

  package func promote(_ slot: TaskSlot, _ pages: Span<PageNumber>) -> Int {
    var count = 0
    for index in pages.indices where state.canBeSuperpage(slot, pages[index]) {
      count += state.superpages.insert(Place(slot, pages[index])).inserted ? 1 : 0
    }
    state.superpageCounts.current += count
    return count
  }

  @discardableResult
  package func attach(_ slot: TaskSlot, _ page: PageNumber) -> Bool { false }

  private func split(_ slot: TaskSlot, _ page: PageNumber, _ cause: SplitCause) {
    guard !state.superpages.isEmpty else { return }
    guard state.superpages.remove(Place(slot, PageNumber(page.rawValue & ~511))) != nil else { return }
    state.superpageCounts.current -= 1
    state.superpageCounts.splits[cause, default: 0] += 1
  }

  // MARK: Frames

  package func wantZeroedFrames() { state.wishes += 1 }

  package func zap(_ run: FrameRun) {
    state.framesZapped += run.count
    if sabotage == .zaps { return }
    for index in 0..<run.count { state.zap(run.start.advanced(by: index)) }
  }

  package func zero(_ run: FrameRun) {
    for index in 0..<run.count {
      let frame = run.start.advanced(by: index)
      state.checkUnreachable(frame, "is zeroed")
      state.checkUnseen(frame, "is zeroed")
      if sabotage != .zeroing { state.memory.fill(frame, 0) }
    }
  }

  package func settleWrites() {
    state.settles += 1
    if sabotage != .settling { state.unsettled.removeAll() }
  }
  /// Number of settles.
  package var settles: Int { state.settles }

  package func copy(from source: FrameNumber, to destination: FrameNumber) {
    state.checkNobodyWrites(source)
    state.checkSettled(source)
    state.checkUnreachable(destination, "is copied into")
    state.checkUnseen(destination, "is copied into")
    if sabotage != .copying { state.memory.copy(from: source, to: destination) }
  }

  package func read(_ frame: FrameNumber, at offset: Int, into buffer: inout MutableSpan<UInt8>) {
    state.checkBacked(frame, "is read")
    state.memory.read(frame, at: offset, into: &buffer)
  }

  package func write(_ frame: FrameNumber, at offset: Int, _ bytes: Span<UInt8>) {
    state.checkBacked(frame, "is written")
    state.memory.write(frame, at: offset, bytes)
  }
}
