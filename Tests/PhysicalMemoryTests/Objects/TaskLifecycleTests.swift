// Creating tasks from programs, and taking everything back.

import CGuestABI
import GuestMemory
import PhysicalMemory
import Simulation
import Testing

@Suite struct TaskLifecycleTests {
  @Test("R1: at the start the server has all frames except the machine's own") func everyFrameIsTheServers() throws {
    let bed = try Testbed(frames: 1024, reserved: 16)
    bed.check()
    let statistics = bed.statistics
    #expect(statistics.frames == 1024)
    #expect(statistics.freeFrames == 1024 - 16)
    #expect(statistics.allocatableFrames == 1024 - 16 - 32)
    #expect(statistics.claimedFrames == 0)
  }

  @Test("R6, R16: a task is charged for all its pages and has frames only for those with data") func charge() throws {
    let bed = try Testbed()
    let image = try bed.load()
    #expect(bed.statistics.contents == SampleProgram.filePages)
    let free = bed.statistics.freeFrames
    let task = try bed.start(image)
    #expect(task.information.allocated == SampleProgram.pages)
    #expect(bed.statistics.claimedFrames == SampleProgram.pages)
    // Private data, the stack's last page, and their tables: root, text and data in one leaf table, the stack.
    #expect(bed.statistics.contents == SampleProgram.filePages + SampleProgram.dataFilePages + 1)
    #expect(bed.statistics.tableFrames == 1 + 3 + 3)
    #expect(free - bed.statistics.freeFrames == SampleProgram.dataFilePages + 1 + 7)
  }

  @Test("a program's text, data and bss are those of its file") func contents() throws {
    let task = try Testbed().start()
    for offset in [0, 1, 4095, 4096, 8191, 12287] {
      #expect(task.read(SampleProgram.text, offset) == .success(SampleProgram.textByte(offset)))
    }
    let start = SampleProgram.dataOffset
    #expect(task.read(SampleProgram.data, start - 1) == .success(0))
    for offset in [0, 1, 4095 - start, 4096 - start, SampleProgram.dataBytes - 1] {
      #expect(task.read(SampleProgram.data, start + offset) == .success(SampleProgram.dataByte(offset)))
    }
    for offset in [start + SampleProgram.dataBytes, 8191, 8192, 5 * 4096 - 1] {
      #expect(task.read(SampleProgram.data, offset) == .success(0))
    }
    #expect(task.read(PM_STACK_TOP - 1) == .success(0))
    #expect(task.read(PM_STACK_TOP - UInt64(PM_STACK_PAGES) << 12) == .success(0))
    #expect(task.read(PM_STACK_TOP).outcome == .notMapped)
    #expect(task.read(PM_STACK_TOP - UInt64(PM_STACK_PAGES) << 12 - 1).outcome == .notMapped)
  }

  @Test("text is executable and not writable, data writable and not executable") func rights() throws {
    let task = try Testbed().start()
    let text = SampleProgram.text.address
    let data = SampleProgram.data.address
    #expect(task.read(text, .execute) == .success(SampleProgram.textByte(0)))
    #expect(task.write(text, 1) == .forbidden)
    #expect(task.read(data, .execute).outcome == .forbidden)
    #expect(task.write(data, 1) == nil)
    #expect(task.read(PM_STACK_TOP - 8, .execute).outcome == .forbidden)
    #expect(task.write(PM_STACK_TOP - 8, 1) == nil)
  }

  @Test("R24: all tasks of a program share its text and have private data") func textIsShared() throws {
    let bed = try Testbed()
    let image = try bed.load()
    let tasks = try (0..<4).map { _ in try bed.start(image) }
    for task in tasks { #expect(task.read(SampleProgram.text, 5000) == .success(SampleProgram.textByte(5000))) }
    let text = SampleProgram.text.advanced(by: 1)
    #expect(Set(tasks.map { $0.leaf(text)?.frame }).count == 1)
    #expect(Set(tasks.map { $0.leaf(SampleProgram.data)?.frame }).count == 4)
    for (index, task) in tasks.enumerated() {
      #expect(task.write(SampleProgram.data.address + 300, UInt8(200 + index)) == nil)
    }
    for (index, task) in tasks.enumerated() {
      #expect(task.read(SampleProgram.data, 300) == .success(UInt8(200 + index)))
    }
    // A later task sees the file's bytes, not the writes of others.
    let late = try bed.start(image)
    #expect(late.read(SampleProgram.data, 300) == .success(SampleProgram.dataByte(44)))
  }

  @Test("the end of a task gives everything back") func everythingComesBack() throws {
    let bed = try Testbed()
    let image = try bed.load()
    let before = bed.balance
    for _ in 0..<3 {
      let task = try bed.start(image)
      let handle = try task.container(40)
      #expect(task.map(handle, 0, 40, TestTask.free, [.read, .write]) == nil)
      #expect(task.map(TestTask.container, 0, 3, TestTask.free.advanced(by: 600), [.read, .forceWrite]) == nil)
      let other = try task.container(5)
      #expect(task.destroy(other) == nil)
      task.end()
      #expect(bed.balance == before)
    }
    // The address space was reused: the three tasks had the same tables.
    #expect(bed.statistics.tableFrames == 1 + 3 + 3 + 2)
    bed.server.releaseClosedSpaces()
    bed.check()
    #expect(bed.statistics.tableFrames == 0)
    try bed.server.unloadImage(image)
    bed.check()
    #expect(bed.statistics.freeFrames == 1023)
    #expect(bed.statistics.contents == 0)
    #expect(bed.statistics.containers == 0)
    #expect(bed.statistics.allocatableFrames == 1023 - 32)
  }

  @Test("a task's slot is reused, its id is not") func ids() throws {
    let bed = try Testbed(tasks: 2)
    let image = try bed.load()
    let first = try bed.start(image)
    let second = try bed.start(image)
    #expect(throws: CallFailure.noMemory) { _ = try bed.start(image) }
    first.end()
    let third = try bed.start(image)
    #expect(third.slot == first.slot)
    #expect(Set([first.id, second.id, third.id]).count == 3)
  }

  @Test("an image is not unloaded while a task runs it, and cannot be run when unloaded") func unloading() throws {
    let bed = try Testbed()
    let image = try bed.load()
    let task = try bed.start(image)
    #expect(throws: CallFailure.busy) { try bed.server.unloadImage(image) }
    task.end()
    try bed.server.unloadImage(image)
    bed.check()
    #expect(throws: CallFailure.contentGone) { try bed.server.unloadImage(image) }
    #expect(throws: CallFailure.contentGone) { _ = try bed.start(image) }
  }

  @Test("segments that overlap or exceed a task's memory are PM_EINVAL") func badSegments() throws {
    let bed = try Testbed()
    func segment(_ start: UInt64, _ pages: Int) -> ImageSegment {
      ImageSegment(
        start: PageNumber(start), pageCount: pages, isWritable: true, isExecutable: false, bytes: [1][...], offset: 0)
    }
    let stack = PM_STACK_TOP >> 12 - UInt64(PM_STACK_PAGES)
    let before = bed.statistics
    let bad = [
      [segment(0, 1)], [segment(stack, 1)], [segment(stack - 1, 2)], [segment(1, Int(PM_USER_END >> 12))],
      [segment(PM_USER_END >> 12, 1)], [segment(.max >> 12, 1)], [segment(.max, 1)],
      [segment(10, 2), segment(11, 1)], [segment(11, 1), segment(10, 2)], [segment(10, 1), segment(10, 1)],
    ]
    for segments in bad { #expect(throws: CallFailure.invalid) { _ = try bed.load(segments) } }
    #expect(bed.statistics == before)
    // Valid: in any order, adjacent, up to the stack; or no segments.
    let task = try bed.start(bed.load([segment(stack - 2, 2), segment(1, 1), segment(2, 1)]))
    for page in [1, 2, stack - 2] as [UInt64] { #expect(task.read(PageNumber(page)) == .success(1)) }
    #expect(try bed.start(bed.load([])).information.allocated == SampleProgram.stackPages)
  }

  @Test("bytes outside a segment trap") func badBytes() async {
    await #expect(processExitsWith: .failure) {
      _ = ImageSegment(
        start: PageNumber(1), pageCount: 2, isWritable: true, isExecutable: false, bytes: [1][...], offset: 4096)
    }
    await #expect(processExitsWith: .failure) {
      let bytes = [UInt8](repeating: 1, count: 4097)
      _ = ImageSegment(
        start: PageNumber(1), pageCount: 1, isWritable: true, isExecutable: false, bytes: bytes[...], offset: 0)
    }
  }

  @Test("a pool too small for a program, its task or its tables rejects it and changes nothing")
  func tooSmall() throws {
    // 256 frames: 1 reserved, 32 for tables, 223 allocatable.
    let bed = try Testbed(frames: 256)
    func program(_ filePages: Int, _ pages: Int) -> [ImageSegment] {
      let bytes = [UInt8](repeating: 1, count: filePages << 12)
      return [
        ImageSegment(
          start: PageNumber(0x400), pageCount: pages, isWritable: true, isExecutable: false, bytes: bytes[...],
          offset: 0)
      ]
    }
    let empty = bed.statistics
    #expect(throws: CallFailure.noMemory) { _ = try bed.load(program(224, 224)) }
    #expect(bed.statistics == empty)
    let large = try bed.load(program(223, 223))
    #expect(bed.statistics.allocatableFrames == 0)
    let full = bed.statistics
    #expect(throws: CallFailure.noMemory) { _ = try bed.start(large) }
    #expect(bed.statistics == full)
    try bed.server.unloadImage(large)
    #expect(bed.statistics.freeFrames == empty.freeFrames)
    // One page of the file, and just enough for its task.
    let image = try bed.load(program(1, 222 - SampleProgram.stackPages))
    let task = try bed.start(image)
    #expect(task.information.available == 0)
    #expect(throws: CallFailure.noMemory) { _ = try bed.start(image) }
    task.end()
    let tight = try bed.load(program(1, 222 - SampleProgram.stackPages))
    #expect(throws: CallFailure.noMemory) { _ = try bed.start(tight) }
  }

  @Test("R4: guarantees that would overcommit are rejected, and nothing changes") func overcommitment() throws {
    let bed = try Testbed(frames: 1024)
    let image = try bed.load()
    let available = bed.statistics.allocatableFrames
    for guaranteed in [available + 1, Int.max, -1, Int.min] {
      let before = bed.statistics
      #expect(throws: CallFailure.noMemory) {
        _ = try bed.start(image, TaskParameters(guaranteed: guaranteed, hasContract: true))
      }
      #expect(bed.statistics == before)
    }
    let first = try bed.start(image, TaskParameters(guaranteed: available - 100, hasContract: true))
    #expect(bed.statistics.claimedFrames == available - 100)
    let before = bed.statistics
    for guaranteed in [101, Int.max] {
      #expect(throws: CallFailure.noMemory) {
        _ = try bed.start(image, TaskParameters(guaranteed: guaranteed, hasContract: true))
      }
      #expect(bed.statistics == before)
    }
    let second = try bed.start(image, TaskParameters(guaranteed: 100, hasContract: true))
    #expect(bed.statistics.claimedFrames == available)
    // A promised but unused frame is lent to the other task.
    let free = available - 2 * SampleProgram.pages
    #expect(second.information.available == free)
    #expect(first.information.available == free)
    #expect(first.information.pressure == 100 * 2 * SampleProgram.pages / available)
    first.end()
    second.end()
    #expect(bed.statistics.claimedFrames == 0)
  }

  @Test("R14: a contract without extra frames must cover the program") func contractTooSmall() throws {
    let bed = try Testbed()
    let image = try bed.load()
    let small = SampleProgram.pages - 1
    let before = bed.statistics
    #expect(throws: CallFailure.noMemory) {
      _ = try bed.start(image, TaskParameters(guaranteed: small, mayUseExtra: false, hasContract: true))
    }
    #expect(bed.statistics == before)
    let exact = try bed.start(
      image, TaskParameters(guaranteed: SampleProgram.pages, mayUseExtra: false, hasContract: true))
    #expect(exact.information.available == 0)
    #expect(try bed.start(image, TaskParameters(guaranteed: small, hasContract: true)).information.available > 0)
  }

  @Test("a task whose page tables run out during its creation leaves nothing behind") func noTables() throws {
    // 32 frames for tables: four tasks take 28. The fifth claims all the rest, so that none are left.
    let bed = try Testbed(frames: 512)
    let image = try bed.load()
    let tasks = try (0..<4).map { _ in try bed.start(image) }
    let before = bed.balance
    let everything = bed.statistics.allocatableFrames - bed.statistics.claimedFrames
    #expect(throws: CallFailure.noMemory) {
      _ = try bed.start(image, TaskParameters(guaranteed: everything, hasContract: true))
    }
    bed.check()
    #expect(bed.balance == before)
    // With seven frames left for tables it can start.
    let last = try bed.start(image, TaskParameters(guaranteed: everything - 7, hasContract: true))
    for task in tasks + [last] { task.end() }
    #expect(bed.statistics.claimedFrames == 0)
  }

  @Test("tables kept for ended tasks go to others when nothing else is left") func keptTables() throws {
    let bed = try Testbed(frames: 512)
    let image = try bed.load()
    let tasks = try (0..<5).map { _ in try bed.start(image) }
    for task in tasks { task.end() }
    #expect(bed.statistics.tableFrames == 35)
    // They are kept, and charged to no task.
    let everything = 512 - 1 - 32 - SampleProgram.filePages
    #expect(bed.statistics.allocatableFrames == everything)
    let task = try bed.start(image, TaskParameters(guaranteed: everything, hasContract: true))
    #expect(bed.statistics.claimedFrames == everything)
    task.end()
  }
}
