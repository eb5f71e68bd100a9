// The model machine itself: it detects each way of using a frame too early.

import GuestMemory
import PhysicalMemory
import Simulation
import Testing

@Suite struct ModelMachineTests {
  private let machine = ModelMachine()
  private let slot = TaskSlot(0)
  private let other = TaskSlot(1)
  private let page = PageNumber(0x1000)

  init() {
    for (slot, first) in [(slot, 10), (other, 20)] as [(TaskSlot, UInt32)] {
      var next = first
      func take() -> FrameNumber? {
        next += 1
        return FrameNumber(next)
      }
      _ = machine.openSpace(slot, takeTable: take)
      _ = machine.makeTables(slot, for: page, takeTable: take)
    }
  }

  private func map(_ slot: TaskSlot, _ page: PageNumber, _ frame: UInt32, _ rights: MappingFlags = [.read, .write]) {
    machine.map(slot, page, frames: [FrameNumber(frame)].span, rights: rights)
  }

  private func zap(_ frame: UInt32) { machine.zap(FrameRun(start: FrameNumber(frame), count: 1)) }

  @Test func properUseIsNoViolation() {
    map(slot, page, 5)
    #expect(machine.store(slot, page.address + 9, 7))
    #expect(machine.load(slot, page.address + 9) == 7)
    #expect(machine.unmap(slot, page, .unmapped) == FrameNumber(5))
    zap(5)
    #expect(machine.load(slot, page.address) == nil)
    machine.zero(FrameRun(start: FrameNumber(5), count: 1))
    map(other, page, 5)
    #expect(machine.load(other, page.address + 9) == 0)
    #expect(machine.violations == [])
  }

  @Test func anAccessThroughAStaleTranslationIsNoticed() {
    map(slot, page, 5)
    _ = machine.unmap(slot, page, .unmapped)
    #expect(machine.load(slot, page.address) == 0)
    #expect(machine.violations.count == 1)
  }

  @Test func aFrameReachedFromBeforeIsNoticedWhateverItIsUsedFor() {
    let uses: [(ModelMachine) -> Void] = [
      { $0.map(TaskSlot(1), PageNumber(0x1000), frames: [FrameNumber(5)].span, rights: .read) },
      { $0.zero(FrameRun(start: FrameNumber(5), count: 1)) },
      { $0.copy(from: FrameNumber(6), to: FrameNumber(5)) },
      { $0.write(FrameNumber(5), at: 0, [1].span) },
      { _ = $0.makeTables(TaskSlot(1), for: PageNumber(1 << 30)) { FrameNumber(5) } },
    ]
    for use in uses {
      let fresh = ModelMachineTests()
      fresh.map(slot, page, 5)
      _ = fresh.machine.unmap(slot, page, .unmapped)
      use(fresh.machine)
      #expect(fresh.machine.violations.count >= 1)
    }
  }

  @Test func aWriterDuringACopyIsNoticed() {
    map(slot, page, 5)
    machine.writeProtect(slot, page)
    machine.copy(from: FrameNumber(5), to: FrameNumber(6))
    #expect(machine.violations.count == 1)
  }

  @Test func writeProtectionHoldsOnceZapped() {
    map(slot, page, 5)
    machine.writeProtect(slot, page)
    zap(5)
    machine.copy(from: FrameNumber(5), to: FrameNumber(6))
    #expect(machine.load(slot, page.address) == 0)
    #expect(!machine.store(slot, page.address, 1))
    #expect(machine.violations == [])
  }

  @Test func replacingALeafIsNoticed() {
    map(slot, page, 5, .read)
    map(slot, page, 5, [.read, .write])
    #expect(machine.violations == [])
    map(slot, page, 6, [.read, .write])
    #expect(machine.violations.count == 2)
  }

  @Test func anotherFrameWithoutAZapIsNoticed() {
    map(slot, page, 5)
    _ = machine.unmap(slot, page, .unmapped)
    map(slot, page, 6)
    #expect(machine.violations.count == 1)
  }

  @Test func missingTablesAreNoticed() {
    map(slot, PageNumber(1 << 20), 5)
    #expect(machine.violations.count == 2)
  }

  @Test func aTableThatIsNotZeroIsNoticed() {
    machine.write(FrameNumber(5), at: 0, [1].span)
    #expect(machine.makeTables(slot, for: PageNumber(1 << 9)) { FrameNumber(5) })
    #expect(machine.violations.count == 1)
  }

  @Test func aSpaceIsClosedEmpty() {
    map(slot, page, 5)
    _ = machine.unmap(slot, page, .unmapped)
    machine.closeSpace(slot) { _ in }
    #expect(machine.violations.count == 1)
    map(other, page, 6)
    machine.closeSpace(other) { _ in }
    #expect(machine.violations.count == 3)
  }

  @Test func leavesAreFoundInOrder() {
    for offset in [700, 3, 90] { machine.makeTablesAndMap(slot, page.advanced(by: offset)) }
    let found = [0, 4, 91, 701].map { machine.firstMapped(slot, from: page.advanced(by: $0), to: PageNumber(1 << 30)) }
    #expect(found == [3, 90, 700, nil].map { $0.map { page.advanced(by: $0) } })
    #expect(machine.firstMapped(slot, from: page, to: page.advanced(by: 3)) == nil)
    #expect(machine.absentRun(slot, from: page, limit: 512) == 3)
    #expect(machine.absentRun(slot, from: page.advanced(by: 91), limit: 1000) == 421)
    #expect(machine.absentRun(slot, from: page.advanced(by: 3), limit: 9) == 0)
    #expect(machine.absentRun(slot, from: PageNumber(1 << 30), limit: 9) == 0)
  }
}

extension ModelMachine {
  fileprivate func makeTablesAndMap(_ slot: TaskSlot, _ page: PageNumber) {
    _ = makeTables(slot, for: page) { FrameNumber(UInt32(page.rawValue)) }
    map(slot, page, frames: [FrameNumber(77)].span, rights: .read)
  }
}
