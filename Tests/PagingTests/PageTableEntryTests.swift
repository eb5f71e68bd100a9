// Page-table entries bit by bit. Source: Intel SDM volume 3, 4.5, tables 4-15 to 4-20.

import GuestMemory
import Paging
import Testing

@Suite struct PageTableEntryTests {
  @Test func theBitsAreTheProcessors() {
    #expect(PageTableEntry.present == 1)
    #expect(PageTableEntry.writable == 2)
    #expect(PageTableEntry.user == 4)
    #expect(PageTableEntry.accessed == 0x20)
    #expect(PageTableEntry.dirty == 0x40)
    #expect(PageTableEntry.pageSize == 0x80)
    #expect(PageTableEntry.noExecute == 0x8000_0000_0000_0000)
    #expect(PageTableEntry.addressMask == 0x000f_ffff_ffff_f000)
  }

  @Test(
    arguments: [
      (false, false, true, 0x8000_0000_0000_0025), (true, false, true, 0x8000_0000_0000_0067),
      (false, true, true, 0x25), (true, true, true, 0x67), (false, false, false, 0x8000_0000_0000_0021),
      (true, true, false, 0x63),
    ] as [(Bool, Bool, Bool, UInt64)])
  func aLeafHasItsRights(isWritable: Bool, isExecutable: Bool, isUser: Bool, bits: UInt64) {
    let entry = PageTableEntry(
      leaf: FrameNumber(0x12345), isWritable: isWritable, isExecutable: isExecutable, isUser: isUser)
    #expect(entry.rawValue == bits | 0x1234_5000)
    #expect(entry.isPresent)
    #expect(entry.isWritable == isWritable)
    #expect(entry.isExecutable == isExecutable)
    #expect(entry.isUser == isUser)
    #expect(entry.frame == FrameNumber(0x12345))
  }

  @Test func aDirectoryEntryPermitsEverything() {
    #expect(PageTableEntry(table: FrameNumber(7)).rawValue == 0x7027)
  }

  @Test func anEmptyEntryIsZero() {
    #expect(PageTableEntry.empty.rawValue == 0)
    #expect(!PageTableEntry.empty.isPresent)
    #expect(PageTableEntry.empty.frame == .none)
  }

  @Test(arguments: [1, 0xffff_ffff, 0x8000_0000] as [UInt32]) func everyFrameHasItsAddress(frame: UInt32) {
    let entry = PageTableEntry(leaf: FrameNumber(frame), isWritable: true, isExecutable: false)
    #expect(entry.rawValue & PageTableEntry.addressMask == UInt64(frame) << 12)
    #expect(entry.frame == FrameNumber(frame))
  }

  @Test func theFrameIsReadWithoutTheBitsAroundIt() {
    let entry = PageTableEntry(rawValue: 0xfff0_0000_0000_5fff)
    #expect(entry.frame == FrameNumber(5))
  }
}
