// The machine as a plain model: leaves in dictionaries, frames as arrays of bytes, and the worst processor that the
// architecture allows. It remembers every translation it ever could have seen, from the moment a leaf is written until
// the frame is zapped (SDM volume 3, 4.10: a processor may cache at any time what the tables permit). Whatever the
// server does to a frame is checked against what such a processor could still do with it.

import GuestMemory
import PhysicalMemory
import Synchronization

/// A page of one task's address space.
struct Place: Hashable, CustomStringConvertible {
  let slot: TaskSlot
  let page: PageNumber

  init(_ slot: TaskSlot, _ page: PageNumber) {
    self.slot = slot
    self.page = page
  }

  var description: String { "page \(String(page.rawValue, radix: 16)) of slot \(slot.rawValue)" }
}

final class ModelMachine: MachineOperations, Sendable {
  /// A closed space with more tables than this is taken apart; its tables wait for `releaseClosedSpaces`.
  let tablesKept: Int
  private let state = Mutex(ModelMachineState())

  init(tablesKept: Int = 16) { self.tablesKept = tablesKept }

  /// What went wrong so far, a sentence each.
  var violations: [String] { state.withLock { $0.violations } }
  /// How often the server asked for zeroed frames.
  var wishes: Int { state.withLock { $0.wishes } }
  /// Frames zapped since the machine was made, those zapped twice counted twice.
  var framesZapped: Int { state.withLock { $0.framesZapped } }
  var leafCount: Int { state.withLock { $0.spaces.values.reduce(0) { $0 + $1.leaves.count } } }
  func leaf(_ slot: TaskSlot, _ page: PageNumber) -> MappedPage? { state.withLock { $0.leaf(Place(slot, page)) } }
  func bytes(_ frame: FrameNumber) -> [UInt8] { state.withLock { $0.bytes(frame) } }

  // MARK: Time, and who was woken

  private let clock = Atomic<UInt64>(1_000_000_000)
  private let woken = Mutex<Set<TaskSlot>>([])

  var now: UInt64 { clock.load(ordering: .relaxed) }
  func advance(microseconds: UInt64) { clock.wrappingAdd(microseconds * 1000, ordering: .relaxed) }
  func advance(to time: UInt64) { clock.max(time, ordering: .relaxed) }
  func raiseUpcall(_ slot: TaskSlot) {}
  func drop(_ slot: TaskSlot, missing: Int) {}
  func processorTime(_ slot: TaskSlot) -> UInt64 { .max }
  func wake(_ slot: TaskSlot) { _ = woken.withLock { $0.insert(slot) } }
  /// Whether the task was woken since this was asked last.
  func wasWoken(_ slot: TaskSlot) -> Bool { woken.withLock { $0.remove(slot) != nil } }

  // MARK: The processor

  /// Reads a byte as the task would; nil: a page fault.
  func load(_ slot: TaskSlot, _ address: UInt64, _ access: Access = .read) -> UInt8? {
    state.withLock { state in
      guard let frame = state.translate(Place(slot, PageNumber(containing: address)), access) else { return nil }
      return state.bytes(frame)[Int(address & 4095)]
    }
  }

  /// Writes a byte as the task would. False: a page fault.
  func store(_ slot: TaskSlot, _ address: UInt64, _ byte: UInt8) -> Bool {
    state.withLock { state in
      guard let frame = state.translate(Place(slot, PageNumber(containing: address)), .write) else { return false }
      state.frames[frame, default: ModelMachineState.zeros][Int(address & 4095)] = byte
      return true
    }
  }

  // MARK: Address spaces. `takeTable` and `giveTable` call the server, which may call the machine: never under the lock.

  func openSpace(_ slot: TaskSlot, takeTable: () -> FrameNumber?) -> Int? {
    let kept = state.withLock { state in
      state.spaces[slot]?.isOpen = true
      return state.spaces[slot]?.tableCount
    }
    if let kept { return kept }
    guard let root = takeTable() else { return nil }
    state.withLock { state in
      state.useAsTable(root)
      state.spaces[slot] = ModelSpace(root: root)
    }
    return 0
  }

  func closeSpace(_ slot: TaskSlot, giveTable: (FrameNumber) -> Void) {
    state.withLock { state in
      state.close(slot)
      if let space = state.spaces[slot], space.tableCount > tablesKept { state.retire(slot) }
    }
  }

  func releaseClosedSpaces(giveTable: (FrameNumber) -> Void) {
    let tables = state.withLock { state in
      for (slot, space) in state.spaces where !space.isOpen { state.retire(slot) }
      let tables = state.retired
      state.retired = []
      return tables
    }
    for frame in tables { giveTable(frame) }
  }

  func makeTables(_ slot: TaskSlot, for page: PageNumber, takeTable: () -> FrameNumber?) -> Bool {
    for name in TableName.all(for: page) {
      if state.withLock({ $0.spaces[slot]?.tables[name] != nil }) { continue }
      guard let frame = takeTable() else { return false }
      state.withLock { state in
        state.useAsTable(frame)
        state.spaces[slot]?.tables[name] = frame
      }
    }
    return true
  }

  // MARK: Leaves

  func mappedPage(_ slot: TaskSlot, _ page: PageNumber) -> MappedPage? { leaf(slot, page) }

  func firstMapped(_ slot: TaskSlot, from page: PageNumber, to end: PageNumber) -> PageNumber? {
    state.withLock { $0.spaces[slot]?.firstLeaf(from: page, to: end) }
  }

  func absentRun(_ slot: TaskSlot, from page: PageNumber, limit: Int) -> Int {
    state.withLock { state in
      guard let space = state.spaces[slot], space.tables[TableName(level: 1, page)] != nil else { return 0 }
      var count = 0
      while count < limit, space.leaves[page.advanced(by: count)] == nil {
        count += 1
        if page.advanced(by: count).rawValue % 512 == 0 { break }
      }
      return count
    }
  }

  func map(_ slot: TaskSlot, _ page: PageNumber, frames: Span<FrameNumber>, rights: MappingFlags) {
    state.withLock { state in
      for index in frames.indices {
        state.map(Place(slot, page.advanced(by: index)), MappedPage(frame: frames[index], rights: rights))
      }
    }
  }

  func unmap(_ slot: TaskSlot, _ page: PageNumber) -> FrameNumber {
    state.withLock { state in
      guard let leaf = state.leaf(Place(slot, page)) else {
        state.report("unmapping \(Place(slot, page)), which has no leaf")
        return .none
      }
      state.setLeaf(Place(slot, page), nil)
      return leaf.frame
    }
  }

  func writeProtect(_ slot: TaskSlot, _ page: PageNumber) {
    state.withLock { state in
      guard let leaf = state.leaf(Place(slot, page)) else {
        return state.report("write-protecting \(Place(slot, page)), which has no leaf")
      }
      state.setLeaf(Place(slot, page), MappedPage(frame: leaf.frame, rights: leaf.rights.subtracting(.write)))
    }
  }

  // MARK: Frames

  func wantZeroedFrames() { state.withLock { $0.wishes += 1 } }

  func zap(_ run: FrameRun) {
    state.withLock { state in
      state.framesZapped += run.count
      for index in 0..<run.count { state.zap(run.start.advanced(by: index)) }
    }
  }

  func zero(_ run: FrameRun) {
    state.withLock { state in
      for index in 0..<run.count {
        let frame = run.start.advanced(by: index)
        state.checkUnreachable(frame, "is zeroed")
        state.frames[frame] = nil
      }
    }
  }

  func copy(from source: FrameNumber, to destination: FrameNumber) {
    state.withLock { state in
      state.checkNobodyWrites(source)
      state.checkUnreachable(destination, "is copied into")
      state.frames[destination] = state.frames[source]
    }
  }

  func read(_ frame: FrameNumber, at offset: Int, into buffer: inout MutableSpan<UInt8>) {
    let bytes = state.withLock { state in
      state.checkBacked(frame, "is read")
      return state.bytes(frame)
    }
    for index in buffer.indices { buffer[index] = bytes[offset + index] }
  }

  func write(_ frame: FrameNumber, at offset: Int, _ bytes: Span<UInt8>) {
    state.withLock { state in
      state.checkBacked(frame, "is written")
      for index in bytes.indices {
        state.frames[frame, default: ModelMachineState.zeros][offset + index] = bytes[index]
      }
    }
  }
}
