// The machine as a plain model: leaves and frames in arrays, and the worst processor that the architecture allows. It
// remembers every translation it ever could have seen, from the moment a leaf is written until the frame is zapped (SDM
// volume 3, 4.10: a processor may cache at any time what the tables permit). Whatever the server does to a frame is
// checked against what such a processor could still do with it.

package import GuestMemory
package import PhysicalMemory
import Synchronization

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

package final class ModelMachine: MachineOperations, Sendable {
  /// A closed space with more tables than this is taken apart; its tables wait for `releaseClosedSpaces`.
  package let tablesKept: Int
  private let state: Mutex<ModelMachineState>

  /// - keepsLog: remember which leaves are written, for `takeWritten`.
  package init(frameCount: Int = 1 << 14, tablesKept: Int = 16, keepsLog: Bool = false) {
    self.tablesKept = tablesKept
    state = Mutex(ModelMachineState(frameCount: frameCount, keepsLog: keepsLog))
  }

  /// What went wrong so far, a sentence each.
  package var violations: [String] { state.withLock { $0.violations } }
  /// How often the server asked for zeroed frames.
  package var wishes: Int { state.withLock { $0.wishes } }
  /// Frames zapped since the machine was made, those zapped twice counted twice.
  package var framesZapped: Int { state.withLock { $0.framesZapped } }
  package var leafCount: Int { state.withLock { $0.leafCount } }
  package func leaf(_ slot: TaskSlot, _ page: PageNumber) -> MappedPage? { state.withLock { $0.leaf(slot, page) } }
  package func bytes(_ frame: FrameNumber) -> [UInt8] { state.withLock { $0.memory.bytes(frame) } }

  /// The places whose leaves were written since this was asked last, some of them more than once.
  package func takeWritten(into places: inout [Place]) {
    state.withLock { state in
      places.removeAll(keepingCapacity: true)
      if !state.written.isEmpty { swap(&places, &state.written) }
    }
  }

  /// The places whose leaves were taken away since this was asked last.
  package func takeEmptied(into places: inout [Place]) {
    state.withLock { state in
      places.removeAll(keepingCapacity: true)
      swap(&places, &state.emptied)
    }
  }

  // MARK: Time, and who was woken

  package var now: UInt64 { state.withLock { $0.now } }
  package func advance(microseconds: UInt64) { state.withLock { $0.now += microseconds * 1000 } }
  package func advance(to time: UInt64) { state.withLock { $0.now = max($0.now, time) } }
  package func wake(_ slot: TaskSlot) { state.withLock { $0.wake(slot) } }
  /// Whether the task was woken since this was asked last.
  package func wasWoken(_ slot: TaskSlot) -> Bool { state.withLock { $0.wasWoken(slot) } }

  // MARK: The processor

  /// Reads a byte as the task would; nil: a page fault.
  package func load(_ slot: TaskSlot, _ address: UInt64, _ access: Access = .read) -> UInt8? {
    var byte = InlineArray<1, UInt8>(repeating: 0)
    var span = byte.mutableSpan
    return load(slot, address, access, into: &span) ? byte[0] : nil
  }

  /// Writes a byte as the task would. False: a page fault.
  package func store(_ slot: TaskSlot, _ address: UInt64, _ byte: UInt8) -> Bool {
    let bytes = InlineArray<1, UInt8>(repeating: byte)
    return store(slot, address, bytes.span)
  }

  /// Reads bytes of one page as the task would. False: a page fault.
  package func load(
    _ slot: TaskSlot, _ address: UInt64, _ access: Access, into buffer: inout MutableSpan<UInt8>
  ) -> Bool {
    state.withLock { state in
      guard let frame = state.translate(slot, PageNumber(containing: address), access) else { return false }
      state.memory.read(frame, at: Int(address & 4095), into: &buffer)
      return true
    }
  }

  /// Writes bytes to one page as the task would. False: a page fault.
  package func store(_ slot: TaskSlot, _ address: UInt64, _ bytes: Span<UInt8>) -> Bool {
    state.withLock { state in
      guard let frame = state.translate(slot, PageNumber(containing: address), .write) else { return false }
      state.memory.write(frame, at: Int(address & 4095), bytes)
      return true
    }
  }

  // MARK: Address spaces. `takeTable` and `giveTable` call the server, which may call the machine: never under the lock.

  package func openSpace(_ slot: TaskSlot, takeTable: () -> FrameNumber?) -> Int? {
    if let kept = state.withLock({ $0.reopen(slot) }) { return kept }
    guard let root = takeTable() else { return nil }
    state.withLock { $0.open(slot, root: root) }
    return 0
  }

  package func closeSpace(_ slot: TaskSlot, giveTable: (FrameNumber) -> Void) {
    state.withLock { $0.close(slot, tablesKept: tablesKept) }
  }

  package func releaseClosedSpaces(giveTable: (FrameNumber) -> Void) {
    for frame in state.withLock({ $0.takeClosed() }) { giveTable(frame) }
  }

  package func makeTables(_ slot: TaskSlot, for page: PageNumber, takeTable: () -> FrameNumber?) -> Bool {
    while let name = state.withLock({ $0.missingTable(slot, page) }) {
      guard let frame = takeTable() else { return false }
      state.withLock { $0.link(slot, name, frame) }
    }
    return true
  }

  // MARK: Leaves

  package func mappedPage(_ slot: TaskSlot, _ page: PageNumber) -> MappedPage? { leaf(slot, page) }

  package func firstMapped(_ slot: TaskSlot, from page: PageNumber, to end: PageNumber) -> PageNumber? {
    state.withLock { $0.firstLeaf(slot, from: page, to: end) }
  }

  package func absentRun(_ slot: TaskSlot, from page: PageNumber, limit: Int) -> Int {
    state.withLock { $0.absentRun(slot, from: page, limit: limit) }
  }

  package func map(_ slot: TaskSlot, _ page: PageNumber, frames: Span<FrameNumber>, rights: MappingFlags) {
    state.withLock { state in
      for index in frames.indices {
        state.map(Place(slot, page.advanced(by: index)), MappedPage(frame: frames[index], rights: rights))
      }
    }
  }

  package func unmap(_ slot: TaskSlot, _ page: PageNumber) -> FrameNumber {
    state.withLock { $0.unmap(Place(slot, page)) }
  }

  package func writeProtect(_ slot: TaskSlot, _ page: PageNumber) {
    state.withLock { $0.writeProtect(Place(slot, page)) }
  }

  // MARK: Frames

  package func wantZeroedFrames() { state.withLock { $0.wishes += 1 } }

  package func zap(_ run: FrameRun) {
    state.withLock { state in
      state.framesZapped += run.count
      for index in 0..<run.count { state.zap(run.start.advanced(by: index)) }
    }
  }

  package func zero(_ run: FrameRun) {
    state.withLock { state in
      for index in 0..<run.count {
        let frame = run.start.advanced(by: index)
        state.checkUnreachable(frame, "is zeroed")
        state.memory.fill(frame, 0)
      }
    }
  }

  package func copy(from source: FrameNumber, to destination: FrameNumber) {
    state.withLock { state in
      state.checkNobodyWrites(source)
      state.checkUnreachable(destination, "is copied into")
      state.memory.copy(from: source, to: destination)
    }
  }

  package func read(_ frame: FrameNumber, at offset: Int, into buffer: inout MutableSpan<UInt8>) {
    state.withLock { state in
      state.checkBacked(frame, "is read")
      state.memory.read(frame, at: offset, into: &buffer)
    }
  }

  package func write(_ frame: FrameNumber, at offset: Int, _ bytes: Span<UInt8>) {
    state.withLock { state in
      state.checkBacked(frame, "is written")
      state.memory.write(frame, at: offset, bytes)
    }
  }
}
