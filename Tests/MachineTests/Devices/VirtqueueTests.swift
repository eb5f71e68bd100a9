// The device side of a virtqueue, against drivers that keep the format and drivers that break it.

import GuestMemory
import Testing

@testable import Machine

private let next: UInt16 = 1
private let write: UInt16 = 2
private let indirect: UInt16 = 4

@Suite struct VirtqueueTests {
  @Test("chains are taken in order, with all their parts") func inOrder() throws {
    var bed = try QueueBed()
    #expect(try bed.take() == nil)
    bed.describe(3, 0x4000, 16, flags: next, next: 15)
    bed.describe(15, 0x5000, 512, flags: next | write, next: 0)
    bed.describe(0, 0x6000, 1, flags: write)
    bed.describe(7, 0x7000, 9)
    bed.offer(3)
    bed.offer(7)
    let first = DescriptorChain(
      head: 3,
      segments: [
        ChainSegment(address: 0x4000, count: 16, isWritable: false),
        ChainSegment(address: 0x5000, count: 512, isWritable: true),
        ChainSegment(address: 0x6000, count: 1, isWritable: true),
      ])
    #expect(try bed.take() == first)
    let second = DescriptorChain(head: 7, segments: [ChainSegment(address: 0x7000, count: 9, isWritable: false)])
    #expect(try bed.take() == second)
    #expect(try bed.take() == nil)
    #expect(try bed.giveBack(7, written: 5))
    #expect(bed.pool.load64(PhysicalAddress(QueueBed.used)) == UInt64(7) << 32 | 1 << 16)
    #expect(bed.pool.load16(PhysicalAddress(QueueBed.used + 8)) == 5)
    bed.check()
  }

  @Test("indices and rings wrap around after 65,535") func wrapsAround() throws {
    var bed = try QueueBed()
    for index in 0..<70_000 {
      bed.describe(index % 16, UInt64(index), 1)
      bed.offer(UInt16(index % 16))
      let chain = try #require(try bed.take())
      #expect(chain.head == UInt16(index % 16) && chain.segments[0].address == UInt64(index))
      _ = try bed.giveBack(chain.head)
    }
    #expect(bed.pool.load16(PhysicalAddress(QueueBed.used + 2)) == UInt16(70_000 & 0xffff))
  }

  @Test("a chain may use every descriptor once, and none twice") func loops() throws {
    var bed = try QueueBed()
    for index in 0..<16 { bed.describe(index, 0x4000, 1, flags: index < 15 ? next : 0, next: UInt16(index + 1)) }
    bed.offer(0)
    #expect(try bed.take()?.segments.count == 16)
    bed.describe(15, 0x4000, 1, flags: next, next: 0)
    bed.offer(2)
    #expect(throws: QueueFailure.loop(head: 2)) { try bed.take() }
    bed.describe(4, 0x4000, 1, flags: next, next: 4)
    var other = try QueueBed()
    other.describe(4, 0x4000, 1, flags: next, next: 4)
    other.offer(4)
    #expect(throws: QueueFailure.loop(head: 4)) { try other.take() }
    bed.check()
  }

  @Test(
    "descriptors beyond the queue and indirect ones are rejected", arguments: [16, 17, 0x8000, 0xffff] as [UInt16])
  func outOfRange(index: UInt16) throws {
    var bed = try QueueBed()
    bed.describe(1, 0x4000, 1, flags: next, next: index)
    bed.offer(1)
    #expect(throws: QueueFailure.noSuchDescriptor(index)) { try bed.take() }
    var head = try QueueBed()
    head.offer(index)
    #expect(throws: QueueFailure.noSuchDescriptor(index)) { try head.take() }
    var table = try QueueBed()
    table.describe(5, 0x4000, 32, flags: indirect)
    table.offer(5)
    #expect(throws: QueueFailure.indirect(5)) { try table.take() }
    table.describe(5, 0x4000, 32, flags: indirect | next, next: 5)
    #expect(throws: QueueFailure.indirect(5)) { try table.take() }
  }

  @Test("more chains than descriptors are rejected, as is an index that goes backwards") func tooMany() throws {
    var bed = try QueueBed()
    bed.pool.store16(PhysicalAddress(QueueBed.available + 2), 17)
    #expect(throws: QueueFailure.tooManyAvailable(17)) { try bed.take() }
    bed.pool.store16(PhysicalAddress(QueueBed.available + 2), 0xffff)
    #expect(throws: QueueFailure.tooManyAvailable(0xffff)) { try bed.take() }
  }

  @Test("a queue that is not completely pinned is not accessed", arguments: [1, 2, 3])
  func notPinned(frame: Int) throws {
    let memory = try ModelMemory()
    memory.pinned = Set(1...3).subtracting([frame])
    let layout = try #require(QueueLayout(size: 16, descriptors: 0x1000, available: 0x2000, used: 0x3000))
    #expect(throws: TransferFailure.notPinned(layout.ranges[frame - 1], FrameNumber(UInt32(frame)))) {
      _ = try memory.begin(layout.ranges)
    }
    #expect(memory.held == [:])
  }

  @Test("each word of the driver is read once: later writes have no effect") func readOnce() throws {
    var bed = try QueueBed()
    bed.describe(0, 0x4000, 16, flags: next, next: 1)
    bed.describe(1, 0x5000, 512, flags: next | write, next: 2)
    bed.describe(2, 0x6000, 1, flags: write)
    bed.offer(0)
    var loads: [UInt64: Int] = [:]
    let pool = bed.pool
    bed.memory.afterLoad = { address in
      loads[address.rawValue, default: 0] += 1
      // Every word becomes invalid right after it was read.
      for offset in stride(from: 0, to: address.rawValue % 8 == 0 && address.rawValue < 0x1200 ? 8 : 2, by: 2) {
        pool.store16(PhysicalAddress(address.rawValue + UInt64(offset)), 0xffff)
      }
    }
    let chain = try bed.take()
    #expect(chain?.segments.map(\.count) == [16, 512, 1])
    #expect(loads.values.allSatisfy { $0 == 1 })
    bed.check()
  }

  @Test("invalid queue locations") func layouts() {
    func layout(
      _ size: UInt32 = 16, _ descriptors: UInt64 = 0x1000, _ available: UInt64 = 0x2000, _ used: UInt64 = 0x3000
    )
      -> QueueLayout?
    {
      QueueLayout(size: size, descriptors: descriptors, available: available, used: used)
    }
    #expect(layout() != nil && layout(256) != nil && layout(1) != nil)
    for size: UInt32 in [0, 3, 15, 512, 1 << 16, 1 << 16 | 16, 1 << 31] { #expect(layout(size) == nil, "\(size)") }
    #expect(layout(16, 0x1008) == nil && layout(16, 0x1000, 0x2001) == nil && layout(16, 0x1000, 0x2000, 0x3002) == nil)
    let last = UInt64.max
    #expect(layout(16, last - 15) == nil && layout(16, last - 255) != nil)
    #expect(layout(16, 0, last - 1) == nil && layout(16, 0, 0, last - 3) == nil)
  }

  // MARK: Notifications

  @Test("without an event index, flags control interrupts and notifications")
  func flags() throws {
    var bed = try QueueBed()
    let rings = try bed.memory.begin(bed.layout.ranges)
    bed.queue.suppressNotifications(bed.memory)
    #expect(bed.pool.load16(PhysicalAddress(QueueBed.used)) == 1)
    bed.queue.allowNotifications(bed.memory)
    #expect(bed.pool.load16(PhysicalAddress(QueueBed.used)) == 0)
    bed.memory.end(rings)
    #expect(try bed.giveBack(0))
    bed.pool.store16(PhysicalAddress(QueueBed.available), 1)
    #expect(try !bed.giveBack(0))
  }

  @Test("with an event index there is one interrupt, when the index passes the requested one")
  func eventIndex() throws {
    var bed = try QueueBed(usesEventIndex: true)
    let event = PhysicalAddress(QueueBed.available + 4 + 2 * UInt64(QueueBed.size))
    bed.pool.store16(event, 2)
    #expect(try (0..<6).map { _ in try bed.giveBack(0) } == [false, false, true, false, false, false])
    bed.pool.store16(event, 0xffff)
    var wanted = 0
    for _ in 6..<(1 << 16) { wanted += try bed.giveBack(0) ? 1 : 0 }
    #expect(wanted == 1)
    // The device requests a notification for the next chain.
    bed.offer(0)
    _ = try bed.take()
    let rings = try bed.memory.begin(bed.layout.ranges)
    bed.queue.allowNotifications(bed.memory)
    bed.memory.end(rings)
    #expect(bed.pool.load16(PhysicalAddress(QueueBed.used + 4 + 8 * UInt64(QueueBed.size))) == 1)
  }
}
