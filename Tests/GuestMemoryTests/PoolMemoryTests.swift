// The pool's memory: two windows on the same bytes, with no access outside of them.

import GuestMemory
import Testing

/// A byte of a frame, read through the guest window.
private func guestByte(_ memory: PoolMemory, _ frame: FrameNumber, _ offset: Int) -> UInt8? {
  // SAFETY: the window is mapped as long as `memory` lives, and the frame was checked by the caller.
  unsafe UnsafePointer<UInt8>(bitPattern: UInt(memory.guestWindowAddress + frame.address))?[offset]
}

private func read(_ memory: PoolMemory, _ frame: FrameNumber, at offset: Int = 0, count: Int = 4096) -> [UInt8] {
  var bytes = [UInt8](repeating: 0xa5, count: count)
  var span = bytes.mutableSpan
  memory.read(frame, at: offset, into: &span)
  return bytes
}

private func run(_ start: UInt32, _ count: Int) -> FrameRun { FrameRun(start: FrameNumber(start), count: count) }

@Suite struct PoolMemoryTests {
  @Test(arguments: [1, 2, 511, 512, 513, 5000]) func bothWindowsBeginAtASuperpage(frameCount: Int) throws {
    let memory = try PoolMemory(frameCount: frameCount)
    #expect(memory.frameCount == frameCount)
    #expect(memory.byteCount == frameCount << 12)
    #expect(memory.guestWindowAddress % (2 << 20) == 0)
    let host = unsafe UInt(bitPattern: memory.pointer(to: FrameNumber(0)))
    #expect(host % (2 << 20) == 0)
    #expect(UInt64(host) != memory.guestWindowAddress)
    let last = FrameNumber(UInt32(frameCount - 1))
    memory.write(last, at: 4095, [7].span)
    #expect(guestByte(memory, last, 4095) == 7)
  }

  @Test func aFreshPoolIsZero() throws {
    let memory = try PoolMemory(frameCount: 16)
    for frame in 0..<16 as Range<UInt32> { #expect(read(memory, FrameNumber(frame)).allSatisfy { $0 == 0 }) }
  }

  @Test func discardedFramesReadZeroAndTheirNeighboursStay() throws {
    let memory = try PoolMemory(frameCount: 16)
    for frame in 0..<16 as Range<UInt32> { memory.write(FrameNumber(frame), at: 8, [UInt8(frame) + 1].span) }
    memory.discard(run(4, 3))
    for frame in 0..<16 as Range<UInt32> {
      let expected = (4..<7).contains(frame) ? 0 : UInt8(frame) + 1
      #expect(read(memory, FrameNumber(frame), at: 8, count: 1) == [expected])
      #expect(guestByte(memory, FrameNumber(frame), 8) == expected)
    }
  }

  @Test func bothWindowsShowTheSameBytes() throws {
    let memory = try PoolMemory(frameCount: 16)
    memory.write(FrameNumber(3), at: 100, [1, 2, 3].span)
    #expect(guestByte(memory, FrameNumber(3), 99) == 0)
    #expect((100..<103).map { guestByte(memory, FrameNumber(3), $0) } == [1, 2, 3])
    // SAFETY: frame 5 is inside the window, which is mapped as long as `memory` lives.
    unsafe UnsafeMutablePointer<UInt8>(bitPattern: UInt(memory.guestWindowAddress + 5 << 12))?[9] = 42
    #expect(read(memory, FrameNumber(5), at: 8, count: 3) == [0, 42, 0])
  }

  @Test func aZapKeepsTheData() throws {
    let memory = try PoolMemory(frameCount: 64)
    for frame in 0..<64 as Range<UInt32> { memory.write(FrameNumber(frame), at: 0, [UInt8(frame)].span) }
    memory.zap(run(0, 64))
    memory.zap(run(63, 1))
    for frame in 0..<64 as Range<UInt32> {
      #expect(guestByte(memory, FrameNumber(frame), 0) == UInt8(frame))
      #expect(read(memory, FrameNumber(frame), count: 1) == [UInt8(frame)])
    }
  }

  @Test func populatingKeepsTheData() throws {
    let memory = try PoolMemory(frameCount: 64)
    memory.write(FrameNumber(9), at: 0, [9].span)
    try memory.populate(run(0, 64))
    #expect(read(memory, FrameNumber(9), count: 2) == [9, 0])
    #expect(read(memory, FrameNumber(10)).allSatisfy { $0 == 0 })
  }

  @Test func zeroingAndCopyingKeepToTheirFrames() throws {
    let memory = try PoolMemory(frameCount: 8)
    for frame in 0..<8 as Range<UInt32> {
      memory.write(FrameNumber(frame), at: 0, [UInt8](repeating: UInt8(frame + 1), count: 4096).span)
    }
    memory.zero(run(2, 3))
    memory.copy(from: FrameNumber(7), to: FrameNumber(0))
    let expected: [UInt8] = [8, 2, 0, 0, 0, 6, 7, 8]
    for frame in 0..<8 as Range<UInt32> {
      #expect(read(memory, FrameNumber(frame)) == [UInt8](repeating: expected[Int(frame)], count: 4096))
    }
  }

  @Test func zeroBytesAreReadAndWrittenAnywhere() throws {
    let memory = try PoolMemory(frameCount: 2)
    memory.write(FrameNumber(1), at: 4096, [UInt8]().span)
    #expect(read(memory, FrameNumber(1), at: 4096, count: 0) == [])
  }

  /// deinit unmaps the windows and frees the memory: otherwise a hundred pools of 64 GiB would not fit.
  @Test func aPoolFreesItsAddressSpace() throws {
    for _ in 0..<3000 {
      let memory = try PoolMemory(frameCount: 1 << 24)
      memory.write(FrameNumber(1 << 24 - 1), at: 0, [1].span)
    }
  }

  @Test func framesOutsideThePoolTrap() async {
    await #expect(processExitsWith: .failure) { try PoolMemory(frameCount: 8).zero(run(8, 1)) }
    await #expect(processExitsWith: .failure) { try PoolMemory(frameCount: 8).zero(run(7, 2)) }
    await #expect(processExitsWith: .failure) { try PoolMemory(frameCount: 8).zero(run(1, 0)) }
    await #expect(processExitsWith: .failure) { try PoolMemory(frameCount: 8).zap(run(4, 5)) }
    await #expect(processExitsWith: .failure) { try PoolMemory(frameCount: 8).zap(run(.max, 1)) }
    await #expect(processExitsWith: .failure) { try PoolMemory(frameCount: 8).zap(run(4, -1)) }
    await #expect(processExitsWith: .failure) {
      try PoolMemory(frameCount: 8).copy(from: FrameNumber(8), to: FrameNumber(1))
    }
    await #expect(processExitsWith: .failure) {
      try PoolMemory(frameCount: 8).copy(from: FrameNumber(1), to: FrameNumber(8))
    }
    await #expect(processExitsWith: .failure) { try PoolMemory(frameCount: 8).populate(run(8, 1)) }
  }

  @Test func bytesAcrossAFramesEndTrap() async {
    await #expect(processExitsWith: .failure) {
      try PoolMemory(frameCount: 8).write(FrameNumber(1), at: 4095, [1, 2].span)
    }
    await #expect(processExitsWith: .failure) {
      try PoolMemory(frameCount: 8).write(FrameNumber(1), at: -1, [1].span)
    }
    await #expect(processExitsWith: .failure) {
      _ = try read(PoolMemory(frameCount: 8), FrameNumber(1), at: 4094, count: 3)
    }
    await #expect(processExitsWith: .failure) {
      try PoolMemory(frameCount: 8).write(FrameNumber(8), at: 0, [1].span)
    }
    await #expect(processExitsWith: .failure) {
      _ = try read(PoolMemory(frameCount: 8), FrameNumber(8), count: 1)
    }
  }

  @Test func anEmptyPoolTraps() async {
    await #expect(processExitsWith: .failure) { _ = try PoolMemory(frameCount: 0) }
    await #expect(processExitsWith: .failure) { _ = try PoolMemory(frameCount: 1 << 31 + 1) }
  }
}

@Suite struct FrameNumberTests {
  @Test func framesAndPagesHaveTheirAddresses() {
    #expect(FrameNumber(3).address == 0x3000)
    #expect(FrameNumber(.max).address == 0xfff_ffff_f000)
    #expect(FrameNumber(3).advanced(by: -2) == FrameNumber(1))
    #expect(FrameNumber.none.isNone)
    #expect(!FrameNumber(1).isNone)
    #expect(FrameNumber(1) < FrameNumber(2))
    #expect(run(5, 3).end == FrameNumber(8))
    #expect(PageNumber(containing: 0x2fff) == PageNumber(2))
    #expect(PageNumber(2).address == 0x2000)
    #expect(PageNumber(2).advanced(by: -1) == PageNumber(1))
    #expect(PageNumber(9).distance(to: PageNumber(4)) == -5)
  }

  @Test func aFrameBeyondTheLastNumberTraps() async {
    await #expect(processExitsWith: .failure) { _ = FrameNumber(.max).advanced(by: 1) }
    await #expect(processExitsWith: .failure) { _ = FrameNumber(0).advanced(by: -1) }
  }
}
