// The server's access to the machine: the page tables of all address spaces, and the frames. Called with the server's
// lock held.

internal import GuestMemory
internal import KVM
internal import Paging
internal import PhysicalMemory

/// The visits of vCPUs to KVM, as the server sees them.
struct MachineDepartures: Departures {
  private let departures: VCPUDepartures

  init(_ departures: VCPUDepartures) { self.departures = departures }

  var count: UInt64 { departures.count }
  func wait(after count: UInt64) { departures.wait(after: count) }
}

/// `MachineOperations` on real page tables and frames.
final class GuestPageTables: MachineOperations {
  /// A closed space with more tables than this is freed. A smaller one is kept for the slot's next task, which finds
  /// its directories unchanged, and KVM's shadow of them too.
  private static let tablesKept = 16
  /// The flush that retired tables wait for takes about 1 ms, so it is batched: at most this many tables wait.
  private static let retiredAtMost = 512

  private let memory: PoolMemory
  private let machine: VirtualMachine
  private var spaces: SpaceTable
  private let history = TranslationHistory()
  /// Tables about to be reused for something else. They wait until KVM has dropped all shadows.
  private var retired: [FrameNumber] = []
  /// The roots of address spaces, for the threads that start vCPUs.
  private let roots: RootTable
  private let wakePreparation: @Sendable () -> Void
  private let signals: TaskSignals

  init(
    memory: PoolMemory, machine: VirtualMachine, capacity: Int, roots: RootTable, signals: TaskSignals,
    wantZeroedFrames: @escaping @Sendable () -> Void
  ) {
    wakePreparation = wantZeroedFrames
    self.signals = signals
    self.memory = memory
    self.machine = machine
    self.roots = roots
    spaces = SpaceTable(capacity: capacity)
  }

  var now: UInt64 { monotonicNanoseconds() }
  func wake(_ slot: TaskSlot) { signals[slot].gate.open() }
  func raiseUpcall(_ slot: TaskSlot) { signals[slot].raiseUpcall() }
  func drop(_ slot: TaskSlot, missing: Int) { signals[slot].drop(missing: missing) }
  func mustStop(_ slot: TaskSlot) -> Bool { signals[slot].mustStop }
  func processorTime(_ slot: TaskSlot) -> UInt64 { signals[slot].processorTime }

  // MARK: Visits

  func visit(_ slot: TaskSlot) -> Visit? { signals[slot].visit.map { Visit(slot: slot, number: $0.rawValue) } }
  func hurry(_ visit: Visit) { signals[visit.slot].hurry(VCPUVisit(rawValue: visit.number)) }
  func watchGracePeriods() { wakePreparation() }

  // MARK: Address spaces

  func openSpace(_ slot: TaskSlot, takeTable: () -> FrameNumber?) -> Int? {
    signals[slot].reset()
    if spaces.reopen(slot) {
      spaces[slot].forgetSplits()
      return spaces.tableCount(slot)
    }
    guard let root = takeTable() else { return nil }
    var tables = PageTables(root: root, memory: memory, history: history)
    tables.shareTopLevel(index: SupervisorArea.rootIndex, table: SupervisorArea.sharedTable)
    spaces.insert(slot, tables)
    roots.set(slot, root)
    return 0
  }

  func closeSpace(_ slot: TaskSlot, giveTable: (FrameNumber) -> Void) {
    spaces.markClosed(slot)
    if spaces.tableCount(slot) > Self.tablesKept { retire(slot) }
    if retired.count >= Self.retiredAtMost { releaseRetired(giveTable) }
  }

  private func retire(_ slot: TaskSlot) {
    spaces.remove(slot).dismantle { retired.append($0) }
  }

  func releaseClosedSpaces(giveTable: (FrameNumber) -> Void) {
    for slot in spaces.closedSlots() where retired.count < Self.retiredAtMost { retire(slot) }
    releaseRetired(giveTable)
  }

  private func releaseRetired(_ giveTable: (FrameNumber) -> Void) {
    guard !retired.isEmpty else { return }
    // A table's frame may be reused for anything, so KVM must not hold a shadow of it. If the flush fails, the tables
    // wait on.
    guard flush() else { return }
    for frame in retired { giveTable(frame) }
    retired.removeAll()
  }

  /// Makes KVM drop all translations.
  /// - Returns: false if KVM lacks memory for it now.
  private func flush() -> Bool {
    guard (try? machine.flushTranslations(unusedAddress: UInt64(memory.byteCount))) != nil else { return false }
    history.flushes += 1
    return true
  }

  func makeTables(_ slot: TaskSlot, for page: PageNumber, takeTable: () -> FrameNumber?) -> Bool {
    spaces[slot].makeTables(for: page, takeFrame: takeTable)
  }

  // MARK: Leaves

  func mappedPage(_ slot: TaskSlot, _ page: PageNumber) -> MappedPage? {
    let entry = spaces[slot].entry(page)
    return entry.isPresent ? mapped(entry) : nil
  }

  func pageUse(_ slot: TaskSlot, _ page: PageNumber) -> PageUse {
    let entry = spaces[slot].entry(page)
    guard entry.isPresent else { return [] }
    var use: PageUse = .present
    if entry.rawValue & PageTableEntry.accessed != 0 { use.insert(.accessed) }
    if entry.rawValue & PageTableEntry.dirty != 0 { use.insert(.dirty) }
    return use
  }

  private func mapped(_ entry: PageTableEntry) -> MappedPage {
    var rights: MappingFlags = .read
    if entry.isWritable { rights.insert(.write) }
    if entry.isExecutable { rights.insert(.execute) }
    return MappedPage(frame: entry.frame, rights: rights)
  }

  func firstMapped(_ slot: TaskSlot, from page: PageNumber, to end: PageNumber) -> PageNumber? {
    spaces[slot].firstPresent(from: page, to: end)
  }

  func absentRun(_ slot: TaskSlot, from page: PageNumber, limit: Int) -> Int {
    spaces[slot].absentRun(from: page, limit: limit)
  }

  func map(_ slot: TaskSlot, _ page: PageNumber, frames: Span<FrameNumber>, rights: MappingFlags) {
    let isWritable = rights.contains(.write)
    let isExecutable = rights.contains(.execute)
    for index in frames.indices {
      spaces[slot].set(
        page.advanced(by: index),
        PageTableEntry(leaf: frames[index], isWritable: isWritable, isExecutable: isExecutable))
    }
  }

  func unmap(_ slot: TaskSlot, _ page: PageNumber, _ cause: SplitCause) -> FrameNumber {
    spaces[slot].clear(page, cause).frame
  }

  func writeProtect(_ slot: TaskSlot, _ page: PageNumber) { spaces[slot].writeProtect(page) }
  func suspect(_ slot: TaskSlot, _ page: PageNumber) -> Bool { spaces[slot].suspect(page) }

  // MARK: Superpages

  var superpageCounts: SuperpageCounts {
    SuperpageCounts(current: history.superpages, splits: history.splits, flushes: Int(history.flushes))
  }

  func superpage(_ slot: TaskSlot, _ page: PageNumber) -> MappedPage? { spaces[slot].superpage(page).map(mapped) }

  func mayMapSuperpage(_ slot: TaskSlot, _ page: PageNumber) -> Bool {
    spaces[slot].isFreeForSuperpage(page) && mayPromote(slot, page)
  }

  func mayPromote(_ slot: TaskSlot, _ page: PageNumber) -> Bool {
    !spaces[slot].wasSplit(page) || spaces[slot].mayBeSuperpage(page, now: now)
  }

  func mapSuperpage(
    _ slot: TaskSlot, _ page: PageNumber, _ frame: FrameNumber, rights: MappingFlags, takeTable: () -> FrameNumber?
  ) -> Bool {
    let leaf = PageTableEntry(
      leaf: frame, isWritable: rights.contains(.write), isExecutable: rights.contains(.execute))
    if spaces[slot].needsFlush(page) {
      guard flush() else { return false }
      spaces[slot].noteSplit(page, now: now)
    }
    return spaces[slot].fillAside(page, first: leaf, takeFrame: takeTable) && spaces[slot].attachAsSuperpage(page)
  }

  func promote(_ slot: TaskSlot, _ pages: Span<PageNumber>) -> Int {
    var needsFlush = false
    for index in pages.indices {
      let page = pages[index]
      guard spaces[slot].superpage(page) == nil, spaces[slot].promotableLeaf(page) != nil else { continue }
      spaces[slot].detach(page)
      if spaces[slot].needsFlush(page) { needsFlush = true }
    }
    guard !needsFlush || flush() else { return 0 }
    var count = 0
    for index in pages.indices where spaces[slot].isDetached(pages[index]) {
      if spaces[slot].attachAsSuperpage(pages[index]) { count += 1 }
    }
    return count
  }

  @discardableResult
  func attach(_ slot: TaskSlot, _ page: PageNumber) -> Bool {
    guard spaces[slot].isDetached(page) else { return false }
    // If the flush fails, the next access faults again and retries it.
    if !spaces[slot].needsFlush(page) || flush() { spaces[slot].attach(page, now: now) }
    return true
  }

  // MARK: Frames

  func wantZeroedFrames() { wakePreparation() }
  /// If KVM lacks memory, a write by an instruction that KVM emulates may be lost. There are two such instructions
  /// (docs/internals/notes/grace-periods.md).
  func settleWrites() { try? machine.settle(unusedAddress: UInt64(memory.byteCount) + 4096) }
  func zap(_ run: FrameRun) { memory.zap(run) }
  func zero(_ run: FrameRun) { memory.zero(run) }
  func discard(_ run: FrameRun) { memory.discard(run) }
  func copy(from source: FrameNumber, to destination: FrameNumber) { memory.copy(from: source, to: destination) }

  func read(_ frame: FrameNumber, at offset: Int, into buffer: inout MutableSpan<UInt8>) {
    memory.read(frame, at: offset, into: &buffer)
  }

  func write(_ frame: FrameNumber, at offset: Int, _ bytes: Span<UInt8>) {
    memory.write(frame, at: offset, bytes)
  }
}
