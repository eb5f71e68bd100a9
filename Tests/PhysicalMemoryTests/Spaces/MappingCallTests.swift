// pm_container_map, pm_unmap, pm_mapping: addresses, ids and rights.

import CGuestABI
import GuestMemory
import PhysicalMemory
import Simulation
import Testing

@Suite struct MappingCallTests {
  private static let free = TestTask.free

  private func page(_ offset: Int) -> PageNumber { Self.free.advanced(by: offset) }

  @Test("R16, R25: an eager mapping is filled in at once, a lazy one on access") func eagerAndLazy() throws {
    let bed = try Testbed()
    let task = try bed.start()
    let handle = try task.container(20)
    let contents = bed.statistics.contents
    #expect(task.map(handle, 0, 10, page(0), [.read, .write, .lazy]) == nil)
    #expect(bed.statistics.contents == contents)
    #expect((0..<10).allSatisfy { task.leaf(page($0)) == nil })
    #expect(task.map(handle, 10, 10, page(100), [.read, .write]) == nil)
    #expect(bed.statistics.contents == contents + 10)
    #expect((0..<10).allSatisfy { task.leaf(page(100 + $0))?.rights == [.read, .write] })
    #expect(task.bed.machine.store(task.slot, page(105).address, 1))
  }

  @Test(
    "write and execute imply read, and forced write implies write",
    arguments: [
      (.read, .read), (.write, [.read, .write]), (.execute, [.read, .execute]), (.forceWrite, [.read, .write]),
      ([.read, .execute], [.read, .execute]), ([.write, .execute], [.read, .write, .execute]),
    ] as [(MappingFlags, MappingFlags)])
  func rights(flags: MappingFlags, effective: MappingFlags) throws {
    let task = try Testbed().start()
    let handle = try task.container(2)
    #expect(task.map(handle, 0, 1, page(0), flags) == nil)
    #expect(task.leaf(page(0))?.rights == effective)
    #expect(task.map(handle, 1, 1, page(1), flags.union(.lazy)) == nil)
    for page in [page(0), page(1)] {
      #expect(task.read(page) == .success(0))
      #expect(task.write(page, 1) == (effective.contains(.write) ? nil : .forbidden))
      #expect(task.read(page.address, .execute).outcome == (effective.contains(.execute) ? nil : .forbidden))
    }
    let information = try task.mapping(page(1)).get()
    #expect(information.rights == effective)
    #expect(information.requested == flags.union(.lazy))
  }

  @Test("bad addresses, counts and flags are PM_EINVAL and change nothing") func badArguments() throws {
    let bed = try Testbed()
    let task = try bed.start()
    let handle = try task.container(8)
    let before = bed.balance
    func map(_ address: UInt64, _ count: UInt32, _ flags: UInt32) -> CallFailure? {
      defer { bed.check() }
      do throws(CallFailure) {
        try bed.server.map(task.slot, handle, start: 0, count: count, address: address, flags: flags)
        return nil
      } catch { return error }
    }
    let read = MappingFlags.read.rawValue
    let addresses: [UInt64] = [
      0, 1, 4095, 4097, Self.free.address + 8, PM_USER_END, PM_USER_END - 1, 1 << 47, 0xffff_8000_0000_0000,
      UInt64.max & ~4095, .max,
    ]
    for address in addresses { #expect(map(address, 1, read) == .invalid) }
    #expect(map(Self.free.address, 0, read) == .invalid)
    #expect(map(PM_USER_END - 4096, 2, read) == .invalid)
    #expect(map(PM_USER_END - 8 * 4096, .max, read) == .invalid)
    for flags in [0, MappingFlags.lazy.rawValue, 32, read | 1 << 31, .max] {
      #expect(map(Self.free.address, 1, flags) == .invalid)
    }
    for (address, count) in [(0, 1), (1, 1), (Self.free.address, 0), (PM_USER_END, 1), (PM_USER_END - 4096, 2)]
      as [(UInt64, UInt32)]
    {
      #expect(throws: CallFailure.invalid) { try bed.server.unmap(task.slot, address: address, count: count) }
    }
    #expect(bed.balance == before)
    // The first and the last page a task may use.
    #expect(map(PM_USER_START, 1, read) == nil)
    #expect(map(PM_USER_END - 8 * 4096, 8, read) == nil)
    #expect(task.read(PM_USER_END - 1) == .success(0))
    #expect(task.unmap(PageNumber(containing: PM_USER_END - 4096), 1) == nil)
    #expect(task.read(PM_USER_END - 1).outcome == .notMapped)
  }

  @Test("ids that are not allocated are PM_ENOENT, all or nothing") func missingFrames() throws {
    let bed = try Testbed()
    let task = try bed.start()
    let handle = try task.container(8)
    #expect(task.deallocate(handle, 4, 1) == .ok(1))
    #expect(task.map(handle, 0, 4, page(0), .read) == nil)
    let before = bed.balance
    #expect(task.map(handle, 0, 8, page(0), .read) == .noEntry)
    #expect(task.map(handle, 4, 1, page(0), [.read, .lazy]) == .noEntry)
    #expect(task.map(handle, 7, 2, page(0), .read) == .noEntry)
    #expect(bed.balance == before)
    #expect(try task.mapping(page(0)).get().frame == 0)
  }

  @Test("mapping over a mapping replaces its middle and keeps its ends", arguments: [true, false])
  func mappingOver(isLazy: Bool) throws {
    let task = try Testbed().start()
    let flags: MappingFlags = isLazy ? [.read, .write, .lazy] : [.read, .write]
    let old = try task.container(10)
    let new = try task.container(4)
    #expect(task.map(old, 0, 10, page(0), flags) == nil)
    for offset in 0..<10 { #expect(task.write(page(offset), UInt8(10 + offset)) == nil) }
    #expect(task.map(new, 0, 4, page(3), flags) == nil)
    #expect((0..<10).map { task.read(page($0)) } == [10, 11, 12, 0, 0, 0, 0, 17, 18, 19].map { .success($0) })
    // The old frames still have their data.
    #expect(task.map(old, 3, 1, page(50), .read) == nil)
    #expect(task.read(page(50)) == .success(13))
    #expect(try task.mapping(page(8)).get().frame == 8)
    #expect(try task.mapping(page(8)).get().container.rawValue == old)
    #expect(try task.mapping(page(3)).get().container.rawValue == new)
  }

  @Test("a frame can be mapped at many addresses") func aliases() throws {
    let bed = try Testbed()
    let task = try bed.start()
    let handle = try task.container(1)
    for offset in 0..<7 { #expect(task.map(handle, 0, 1, page(offset * 100), [.read, .write]) == nil) }
    #expect(task.write(page(300), 33) == nil)
    #expect((0..<7).allSatisfy { task.read(page($0 * 100)) == .success(33) })
    // Any of them can be unmapped first.
    for offset in [3, 0, 6, 1, 5, 2] { #expect(task.unmap(page(offset * 100), 1) == nil) }
    #expect(task.read(page(400)) == .success(33))
    #expect(task.deallocate(handle, 0, 1) == .ok(1))
    #expect(task.read(page(400)).outcome == .notMapped)
  }

  @Test("R25, R27: an unmapped page can be mapped again, with its data") func unmapping() throws {
    let bed = try Testbed()
    let task = try bed.start()
    let handle = try task.container(10)
    #expect(task.map(handle, 0, 10, page(0), [.read, .write]) == nil)
    for offset in 0..<10 { #expect(task.write(page(offset), UInt8(offset + 1)) == nil) }
    let contents = bed.statistics.contents
    #expect(task.unmap(page(4), 2) == nil)
    #expect(bed.statistics.contents == contents)
    #expect(task.leaf(page(4)) == nil)
    #expect(task.read(page(4)).outcome == .notMapped)
    #expect(task.mapping(page(5)) == .failure(.noEntry))
    #expect(task.read(page(3)) == .success(4))
    #expect(task.read(page(6)) == .success(7))
    #expect(task.unmap(page(4), 2) == nil)
    // Over a wide, mostly unmapped range.
    #expect(task.unmap(PageNumber(containing: 0x800_0000), .max) == nil)
    #expect(task.read(page(9)).outcome == .notMapped)
    #expect(task.map(handle, 0, 10, page(0), [.read, .lazy]) == nil)
    #expect((0..<10).allSatisfy { task.read(page($0)) == .success(UInt8($0 + 1)) })
  }

  @Test("a task's image and stack can be unmapped like anything else") func unmappingTheImage() throws {
    let task = try Testbed().start()
    #expect(task.unmap(SampleProgram.text, 2) == nil)
    #expect(task.read(SampleProgram.text).outcome == .notMapped)
    #expect(task.read(SampleProgram.text, 8192) == .success(SampleProgram.textByte(8192)))
    #expect(task.map(TestTask.container, 0, 2, SampleProgram.text, [.read, .execute, .lazy]) == nil)
    #expect(task.read(SampleProgram.text.address, .execute) == .success(SampleProgram.textByte(0)))
  }

  @Test(
    "R25: a mapping across the boundaries of tables of every level",
    arguments: [0x20_0000, 0x4000_0000, 0x80_0000_0000, 0x7fff_4000_0000] as [UInt64], [true, false])
  func acrossTables(border: UInt64, isLazy: Bool) throws {
    let bed = try Testbed()
    let task = try bed.start()
    let handle = try task.container(8)
    let first = PageNumber(containing: border).advanced(by: -4)
    let flags: MappingFlags = isLazy ? [.read, .write, .lazy] : [.read, .write]
    #expect(task.map(handle, 0, 8, first, flags) == nil)
    if !isLazy { #expect((0..<8).allSatisfy { task.leaf(first.advanced(by: $0)) != nil }) }
    for offset in 0..<8 { #expect(task.write(first.advanced(by: offset), UInt8(offset + 1)) == nil) }
    #expect((0..<8).allSatisfy { task.read(first.advanced(by: $0)) == .success(UInt8($0 + 1)) })
    #expect(task.unmap(first.advanced(by: 2), 4) == nil)
    #expect((0..<8).filter { task.leaf(first.advanced(by: $0)) != nil } == [0, 1, 6, 7])
  }

  @Test("mappings larger than one step of the server", arguments: [true, false]) func large(isLazy: Bool) throws {
    let bed = try Testbed(frames: 8192)
    let task = try bed.start()
    let count: UInt32 = 5000
    let handle = try task.container(count)
    let flags: MappingFlags = isLazy ? [.read, .write, .lazy] : [.read, .write]
    #expect(task.map(handle, 0, count, page(3), flags) == nil)
    for offset in stride(from: 0, to: Int(count), by: 999) { #expect(task.write(page(3 + offset), 9) == nil) }
    #expect(task.map(handle, 0, count, page(3), [.read, .write]) == nil)
    #expect(bed.machine.leafCount >= Int(count))
    #expect(task.unmap(page(0), count) == nil)
    #expect((0..<5).allSatisfy { (task.leaf(page(3 + Int(count) - 1 - $0)) != nil) == ($0 < 3) })
    #expect(task.deallocate(handle, 0, count) == .ok(count))
    #expect(task.leaf(page(3 + Int(count) - 1)) == nil)
  }

  @Test("a mapping that continues another is merged with it") func joining() throws {
    let task = try Testbed().start()
    let handle = try task.container(9)
    for offset in [0, 6, 3] {
      #expect(task.map(handle, UInt32(offset), 3, page(offset), [.read, .write, .lazy]) == nil)
    }
    for offset in 0..<9 { #expect(try task.mapping(page(offset)).get().frame.rawValue == UInt32(offset)) }
  }

  @Test("R26: text mapped for writing is read-only; forced write copies it at once") func enforcedWrite()
    throws
  {
    let bed = try Testbed()
    let image = try bed.load()
    let task = try bed.start(image)
    let witness = try bed.start(image)
    let copies = bed.statistics.copiesOnWrite
    #expect(task.map(TestTask.container, 0, 3, page(0), [.read, .write]) == nil)
    #expect(task.leaf(page(0))?.rights == .read)
    #expect(task.write(page(0), 1) == .forbidden)
    #expect(bed.statistics.copiesOnWrite == copies)
    #expect(task.map(TestTask.container, 0, 2, page(0), [.read, .forceWrite]) == nil)
    #expect(bed.statistics.copiesOnWrite == copies + 2)
    #expect((0..<3).map { task.leaf(page($0))?.rights } == [[.read, .write], [.read, .write], .read])
    #expect(bed.machine.store(task.slot, page(0).address, 0x90))
    // The task's own text is the same virtual frame and changes. The other task's is another and does not.
    #expect(task.read(SampleProgram.text.address, .execute) == .success(0x90))
    #expect(task.read(SampleProgram.text, 4097) == .success(SampleProgram.textByte(4097)))
    #expect(witness.read(SampleProgram.text) == .success(SampleProgram.textByte(0)))
    let late = try bed.start(image)
    #expect(late.read(SampleProgram.text) == .success(SampleProgram.textByte(0)))
  }

  @Test("R25: without a page table an eager map is PM_ENOMEM and a lazy one faults; the old mapping stays")
  func noFrames() throws {
    let bed = try Testbed(frames: 256)
    let task = try bed.start()
    let handle = try task.container(1)
    #expect(task.map(handle, 0, 1, page(0), [.read, .write]) == nil)
    #expect(task.write(page(0), 7) == nil)
    // A distant page needs three tables. There are 32 and the unclaimed frames.
    let available = UInt32(task.information.available)
    let rest = try task.container(available)
    var far = 0
    var answer: CallFailure?
    while answer == nil {
      far += 1
      answer = task.map(handle, 0, 1, PageNumber(UInt64(far) << 27), .read)
    }
    #expect(answer == .noMemory)
    #expect(far == 9)
    #expect(task.mapping(PageNumber(UInt64(far) << 27)) == .failure(.noEntry))
    #expect(task.map(handle, 0, 1, PageNumber(UInt64(far) << 27), [.read, .lazy]) == nil)
    #expect(task.read(PageNumber(UInt64(far) << 27)).outcome == .noMemory)
    #expect(task.read(page(0)) == .success(7))
    #expect(task.deallocate(rest, 0, available) == .ok(available))
    #expect(task.read(PageNumber(UInt64(far) << 27)) == .success(7))
  }

  @Test("pm_mapping reports the frame's address once it is resident") func mappingInformation() throws {
    let bed = try Testbed()
    let task = try bed.start()
    let handle = try task.container(3)
    #expect(task.map(handle, 1, 2, page(0), [.read, .write, .lazy]) == nil)
    let before = try task.mapping(page(1)).get()
    #expect(before.container.rawValue == handle)
    #expect(before.frame == 2)
    #expect(before.rights == [])
    #expect(before.physicalAddress == 0)
    #expect(task.write(page(1), 1) == nil)
    let after = try task.mapping(page(1)).get()
    #expect(after.rights == [.read, .write])
    #expect(after.physicalAddress == task.leaf(page(1))?.frame.address)
    #expect(try task.mapping(SampleProgram.text).get().container.rawValue == TestTask.container)
    #expect(task.deallocate(handle, 1, 1) == .ok(1))
    for address in [page(0).address, 0, PM_USER_END, 1 << 63, .max] {
      #expect(throws: CallFailure.noEntry) { _ = try bed.server.mappingInformation(task.slot, address: address) }
    }
  }
}
