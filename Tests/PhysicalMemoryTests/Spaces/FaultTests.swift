// Page faults: which are served, and with how many pages.

import CGuestABI
import GuestMemory
import PhysicalMemory
import Simulation
import Testing

@Suite struct FaultTests {
  private func page(_ offset: Int) -> PageNumber { TestTask.free.advanced(by: offset) }

  @Test("R16, R25: a fault on a lazy mapping is served with a zeroed frame") func served() throws {
    let bed = try Testbed()
    let task = try bed.start()
    let handle = try task.container(4)
    #expect(task.map(handle, 0, 4, page(0), [.read, .write, .lazy]) == nil)
    let before = task.information.counters
    #expect(task.fault(page(2), .write) == .served(pages: 1))
    #expect(task.leaf(page(2))?.rights == [.read, .write])
    #expect(task.leaf(page(1)) == nil)
    let counters = task.information.counters
    #expect(counters.faults == before.faults + 1)
    #expect(counters.pages == before.pages + 1)
    #expect(bed.statistics.faults >= 1)
  }

  @Test("a fault on a page that permits the access is spurious") func spurious() throws {
    let task = try Testbed().start()
    let spurious = task.information.counters.spuriousFaults
    #expect(task.fault(SampleProgram.data, .write) == .spurious)
    #expect(task.fault(SampleProgram.text, .execute) == .spurious)
    #expect(task.information.counters.spuriousFaults == spurious + 2)
  }

  /// The number of faults that are retried.
  private func retries(_ task: TestTask, _ page: PageNumber, _ access: Access, atMost limit: Int) -> Int {
    for count in 0..<limit where task.fault(page, access) == .unexplained { return count }
    return limit
  }

  @Test("unexplained faults do not repeat forever") func unexplained() throws {
    let bed = try Testbed()
    let task = try bed.start()
    let handle = try task.container(2)
    #expect(task.map(handle, 0, 2, page(0), [.read, .write, .lazy]) == nil)
    #expect(task.fault(page(0), .write) == .served(pages: 1))
    let count = retries(task, page(0), .write, atMost: 10_000)
    #expect((100..<5_000).contains(count))
    // Rewriting the leaf in between explains any number of faults.
    for _ in 0...count / 2 {
      #expect(task.map(handle, 0, 1, page(0), [.read, .write]) == nil)
      #expect(task.fault(page(0), .write) == .spurious)
      #expect(task.fault(page(0), .write) == .spurious)
    }
    // So does another fault of the task.
    #expect(task.fault(page(1), .write) == .served(pages: 1))
    #expect(retries(task, page(0), .write, atMost: 10_000) >= count - 1)
    task.end()
  }

  @Test("R37: faults outside mappings, or on deallocated frames, are delivered to the task") func notMapped() throws {
    let task = try Testbed().start()
    let handle = try task.container(2)
    #expect(task.map(handle, 0, 2, page(0), [.read, .write, .lazy]) == nil)
    #expect(task.deallocate(handle, 1, 1) == .ok(1))
    let pages: [UInt64] = [
      0, page(2).rawValue, page(1).rawValue, PM_USER_END >> 12, 1 << 35, 0xf_ffff_8000_0000, 1 << 52 - 1, .max >> 12,
    ]
    for page in pages {
      for access in [.read, .write, .execute] as [Access] {
        let outcome = task.fault(PageNumber(page), access)
        #expect(outcome == .notMapped || (access == .execute && outcome == .forbidden))
      }
    }
    #expect(task.fault(page(0), .read) == .served(pages: 1))
  }

  @Test("an access that the mapping does not permit is forbidden, with and without a leaf") func forbidden() throws {
    let task = try Testbed().start()
    let handle = try task.container(2)
    #expect(task.map(handle, 0, 2, page(0), [.read, .lazy]) == nil)
    #expect(task.fault(page(0), .write) == .forbidden)
    #expect(task.fault(page(0), .execute) == .forbidden)
    #expect(task.leaf(page(0)) == nil)
    #expect(task.fault(page(0), .read) == .served(pages: 1))
    #expect(task.fault(page(0), .write) == .forbidden)
  }

  // MARK: Copy on write

  @Test("R24, R26: a write to lazily mapped text copies it, for this virtual frame only") func copyOnWrite() throws {
    let bed = try Testbed()
    let image = try bed.load()
    let task = try bed.start(image)
    let witness = try bed.start(image)
    #expect(task.map(TestTask.container, 0, 3, page(0), [.read, .write, .lazy]) == nil)
    #expect(task.read(page(1)) == .success(SampleProgram.textByte(4096)))
    #expect(task.leaf(page(1))?.rights == .read)
    let shared = task.leaf(page(1))?.frame
    let copies = bed.statistics.copiesOnWrite
    #expect(task.write(page(1), 0xcc) == nil)
    #expect(bed.statistics.copiesOnWrite == copies + 1)
    #expect(task.leaf(page(1))?.frame != shared)
    #expect(task.read(page(1), 1) == .success(SampleProgram.textByte(4097)))
    // Also through the other mapping of the same virtual frame.
    #expect(task.read(SampleProgram.text, 4096) == .success(0xcc))
    #expect(witness.read(SampleProgram.text, 4096) == .success(SampleProgram.textByte(4096)))
    // Written at once, without an earlier read.
    #expect(task.write(page(2), 0xdd) == nil)
    #expect(task.read(SampleProgram.text, 8192) == .success(0xdd))
    #expect(task.write(page(2), 0xde) == nil)
    #expect(bed.statistics.copiesOnWrite == copies + 2)
  }

  @Test("R24: a write fault fills in only pages with the same rights") func copyOnWriteAround() throws {
    let bed = try Testbed()
    let task = try bed.start(bed.load(), TaskParameters(faultAround: .fixed(16)))
    #expect(task.map(TestTask.container, 0, 3, page(0), [.read, .write, .lazy]) == nil)
    #expect(task.fault(page(0), .write) == .served(pages: 1))
    #expect(task.leaf(page(1)) == nil)
    #expect(task.fault(page(1), .read) == .served(pages: 2))
    #expect(task.leaf(page(2))?.rights == .read)
  }

  @Test("R24: deallocating a frame does not affect other sharers of its content") func droppingACopy() throws {
    let bed = try Testbed()
    let image = try bed.load()
    let task = try bed.start(image)
    let witness = try bed.start(image)
    #expect(witness.read(SampleProgram.text) == .success(SampleProgram.textByte(0)))
    let contents = bed.statistics.contents
    #expect(task.deallocate(TestTask.container, 0, 3) == .ok(3))
    #expect(bed.statistics.contents == contents)
    #expect(task.read(SampleProgram.text).outcome == .notMapped)
    // The other sharer's leaf was not touched.
    #expect(witness.leaf(SampleProgram.text) != nil)
    #expect(witness.read(SampleProgram.text) == .success(SampleProgram.textByte(0)))
    #expect(task.allocate(TestTask.container, 0, 3) == .ok(3))
    #expect(task.read(SampleProgram.text) == .success(0))
  }

  @Test("without a frame for a page table a fault is out of memory, and is served when there is one")
  func noTable() throws {
    let bed = try Testbed(frames: 256)
    let task = try bed.start()
    let handle = try task.container(1)
    let rest = try task.container(UInt32(task.information.available))
    for far in 1...9 as ClosedRange<UInt64> {
      #expect(task.map(handle, 0, 1, PageNumber(far << 27), [.read, .write, .lazy]) == nil)
    }
    let outcomes = (1...9 as ClosedRange<UInt64>).map { task.fault(PageNumber($0 << 27), .write) }
    #expect(outcomes.prefix(8).allSatisfy { $0 == .served(pages: 1) })
    #expect(outcomes[8] == .noMemory)
    #expect(task.write(PageNumber(1 << 27), 5) == nil)
    #expect(task.destroy(rest) == nil)
    #expect(task.read(PageNumber(9 << 27)) == .success(5))
  }

  // MARK: Fault-around

  private func task(_ around: FaultAround, frames: Int = 4096) throws -> TestTask {
    let bed = try Testbed(frames: frames)
    return try bed.start(bed.load(), TaskParameters(faultAround: around))
  }

  @Test("a fixed number of pages a fault", arguments: [1, 16, 64]) func fixed(count: Int) throws {
    let task = try task(.fixed(count))
    let handle = try task.container(200)
    #expect(task.map(handle, 0, 200, page(0), [.read, .write, .lazy]) == nil)
    #expect(task.fault(page(100), .write) == .served(pages: count))
    #expect((0..<200).filter { task.leaf(page($0)) != nil } == Array(100..<(100 + count)))
  }

  @Test(
    "an invalid number of pages counts as one, or as the maximum",
    arguments: [(0, 1), (-5, 1), (Int.min, 1), (Int.max, 512)])
  func nonsense(count: Int, expected: Int) throws {
    let task = try task(.fixed(count))
    let handle = try task.container(600)
    #expect(task.map(handle, 0, 600, page(0), [.read, .write, .lazy]) == nil)
    #expect(task.fault(page(0), .write) == .served(pages: expected))
  }

  @Test("pages are filled in up to the end of the mapping or table, or up to a page with a leaf")
  func bounds() throws {
    let task = try task(.fixed(16))
    let handle = try task.container(1000)
    #expect(task.map(handle, 0, 10, page(0), [.read, .write, .lazy]) == nil)
    #expect(task.map(handle, 500, 10, page(10), [.read, .write, .lazy]) == nil)
    #expect(task.fault(page(4), .write) == .served(pages: 6))
    #expect(task.leaf(page(10)) == nil)
    #expect(task.fault(page(1), .write) == .served(pages: 3))
    #expect(task.map(handle, 100, 100, page(505), [.read, .write, .lazy]) == nil)
    #expect(task.fault(page(505), .write) == .served(pages: 7))
    #expect(task.leaf(page(512)) == nil)
    // Up to an id that is not in use.
    #expect(task.deallocate(handle, 116, 1) == .ok(1))
    #expect(task.fault(page(512), .write) == .served(pages: 9))
    #expect(task.fault(page(521), .write) == .notMapped)
  }

  @Test("automatic: the window doubles for a sequential reader, and is one page otherwise") func automatic() throws {
    let task = try task(.automatic)
    let handle = try task.container(2000)
    #expect(task.map(handle, 0, 2000, page(0), [.read, .write, .lazy]) == nil)
    var at = 0
    var served: [Int] = []
    while at < 2000 {
      guard case .served(let pages) = task.fault(page(at), .write) else { break }
      served.append(pages)
      at += pages
    }
    // At most 512, and never past a leaf table: 1 + … + 256 is one page short of the first.
    #expect(served == [1, 2, 4, 8, 16, 32, 64, 128, 256, 1, 512, 512, 464])
    let random = try self.task(.automatic)
    let other = try random.container(2000)
    #expect(random.map(other, 0, 2000, page(0), [.read, .write, .lazy]) == nil)
    for offset in [50, 10, 900, 12, 51 + 2, 400] { #expect(random.fault(page(offset), .write) == .served(pages: 1)) }
    #expect(random.fault(page(401), .write) == .served(pages: 2))
    #expect(random.fault(page(404), .write) == .served(pages: 1))
  }

  @Test("alternate reads of two mappings do not disturb each other") func automaticTwice() throws {
    let task = try task(.automatic)
    let handle = try task.container(200)
    #expect(task.map(handle, 0, 100, page(0), [.read, .write, .lazy]) == nil)
    #expect(task.map(handle, 100, 100, page(200), [.read, .write, .lazy]) == nil)
    for (offset, pages) in [(0, 1), (1, 2), (3, 4), (7, 8)] {
      #expect(task.fault(page(offset), .write) == .served(pages: pages))
      #expect(task.fault(page(200 + offset), .write) == .served(pages: pages))
    }
  }

  @Test("when free frames are short, fewer pages are filled in") func exhaustion() throws {
    let bed = try Testbed(frames: 256)
    let task = try bed.start(bed.load(), TaskParameters(faultAround: .fixed(512)))
    let count = task.information.available
    let handle = try task.container(UInt32(count))
    #expect(task.map(handle, 0, UInt32(count), page(0), [.read, .write, .lazy]) == nil)
    #expect(task.fault(page(0), .write) == .served(pages: count))
    #expect(task.information.available == 0)
    for offset in [0, count - 1] { #expect(task.write(page(offset), 1) == nil) }
    #expect(task.deallocate(handle, 0, UInt32(count)) == .ok(UInt32(count)))
    #expect(task.allocate(handle, 0, UInt32(count)) == .ok(UInt32(count)))
    #expect(task.fault(page(0), .read) == .served(pages: count))
    #expect(task.read(page(count - 1)) == .success(0))
  }
}
