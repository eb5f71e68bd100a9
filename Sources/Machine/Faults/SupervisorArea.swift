// The supervisor half of every address space: all the code that ever runs at CPL0, and the tables the processor
// needs to get there. Shared by all tasks, and out of their reach.
//
// CPL0 code is a row of stubs, one for each exception and one for all interrupts. A stub is one `out` to a port that
// names the exception, which exits to the host; the host reads the frame the processor pushed, and sets the registers
// itself when it lets the task go on, so nothing after the `out` ever runs.
//
//      ffff800000000000  stubs          16 bytes each
//      ffff800000001000  IDT            256 gates
//      ffff800000002000  GDT
//      ffff800000003000  nothing: where `syscall` leads
//      ffff800000004000  clearing the protection keys, for tasks to execute; only on hosts that have them
//      ffff800000200000  vCPU pages     TSS with I/O bitmap at the start, exception stack at the end, one page a vCPU
//
// Sources: Intel SDM volume 3, 6.14 "exception and interrupt handling in 64-bit mode", 7.7 "task management in 64-bit
// mode", and volume 1, 19.5.2 "I/O permission bit map".

internal import CGuestABI
internal import GuestMemory
internal import KVM
internal import Paging

// SAFETY: writes only into the frames reserved at the pool's start and those given to `addVCPUPage`, each within its
// 4,096 bytes.
@safe
struct SupervisorArea: Sendable {
  /// Frames at the pool's start that the machine keeps, frame 0 included.
  static let reservedFrames = 16

  static let base: UInt64 = 0xffff_8000_0000_0000
  static let idtAddress = base + 0x1000
  static let gdtAddress = base + 0x2000
  static let gdtLimit: UInt16 = 7 * 8 - 1
  /// Where `syscall` goes on a KVM that runs tasks with the host's EFER: still at CPL3, with the way back in RCX and R11.
  /// Nothing is there, so that it is a page fault, which `VCPULoop.systemCall` knows by its address.
  static let systemCallEntry = base + 0x3000
  /// Code at CPL3: WRPKRU with 0, then a call that does nothing.
  static let keyReset = base + 0x4000
  private static let vcpuBase = base + 0x20_0000
  /// Two leaf tables of vCPU pages.
  static let maximumVCPUs = 1024

  static let kernelCode: UInt16 = 0x08
  static let userCode: UInt16 = 0x18 | 3
  static let userData: UInt16 = 0x20 | 3
  static let taskState: UInt16 = 0x28
  static let tssLimit: UInt32 = UInt32(ioBitmapOffset + ioBitmapBytes - 1)
  private static let ioBitmapOffset = 104
  /// Up to the call port, and a closing byte of ones.
  private static let ioBitmapBytes = Int(PM_CALL_PORT) / 8 + 2

  /// Ports that stubs write to: this plus the exception's vector, or plus 32 for an interrupt.
  static let exceptionPorts: UInt16 = 0x80
  static let interruptPort: UInt16 = exceptionPorts + 32
  /// The vector of upcalls; any from 32 on would do.
  static let interruptVector: UInt8 = 32

  private static let stubs = FrameNumber(1)
  private static let idt = FrameNumber(2)
  private static let gdt = FrameNumber(3)
  /// What each root's entry 256 points at, the next level, and the leaf tables: the fixed pages, then the vCPUs'.
  static let sharedTable = FrameNumber(4)
  private static let directory = FrameNumber(5)
  private static let fixedLeaves = FrameNumber(6)
  private static let vcpuLeaves = FrameNumber(7)
  private static let keyResetCode = FrameNumber(9)

  static let rootIndex = 256

  private let memory: PoolMemory

  init(_ memory: PoolMemory) {
    self.memory = memory
    writeStubs()
    writeIDT()
    writeGDT()
    store(PageTableEntry(table: Self.directory).rawValue, Self.sharedTable, 0)
    for index in 0..<3 {
      store(PageTableEntry(table: Self.fixedLeaves.advanced(by: index)).rawValue, Self.directory, index)
    }
    store(supervisorLeaf(Self.stubs, isExecutable: true), Self.fixedLeaves, 0)
    store(supervisorLeaf(Self.idt), Self.fixedLeaves, 1)
    store(supervisorLeaf(Self.gdt), Self.fixedLeaves, 2)
    if HostProcessor.hasProtectionKeys { addKeyReset() }
  }

  private func addKeyReset() {
    // xor %eax, %eax; xor %ecx, %ecx; xor %edx, %edx; wrpkru; out %al, $call; ud2
    store(0x010f_d231_c931_c031, Self.keyResetCode, 0)
    store(0xef | 0xe6 << 8 | UInt64(PM_CALL_PORT) << 16 | 0x0b0f << 24, Self.keyResetCode, 1)
    let leaf = PageTableEntry(leaf: Self.keyResetCode, isWritable: false, isExecutable: true)
    store(leaf.rawValue, Self.fixedLeaves, 4)
  }

  private func supervisorLeaf(_ frame: FrameNumber, isWritable: Bool = false, isExecutable: Bool = false) -> UInt64 {
    PageTableEntry(leaf: frame, isWritable: isWritable, isExecutable: isExecutable, isUser: false).rawValue
  }

  private func store(_ value: UInt64, _ frame: FrameNumber, _ index: Int) {
    precondition((0..<512).contains(index))
    unsafe memory.pointer(to: frame).storeBytes(of: value, toByteOffset: index * 8, as: UInt64.self)
  }

  private func writeStubs() {
    for index in 0...32 {
      // out %al, $port; then hlt, which nothing reaches.
      let code = UInt64(0xe6) | UInt64(Self.exceptionPorts + UInt16(index)) << 8 | 0xf4 << 16
      store(code, Self.stubs, index * 2)
    }
  }

  private func writeIDT() {
    for vector in 0..<256 {
      let handler = Self.base + UInt64(min(vector, 32)) * 16
      // An interrupt gate, on the TSS's stack. Only the processor itself may go through it (DPL 0), but for breakpoints,
      // which are an instruction of the task: INT3 checks the gate's level like INT n (Intel SDM volume 2).
      let attributes: UInt64 = vector == 3 ? 0xee : 0x8e
      let low =
        handler & 0xffff | UInt64(Self.kernelCode) << 16 | attributes << 40 | (handler >> 16 & 0xffff) << 48
      store(low, Self.idt, vector * 2)
      store(handler >> 32, Self.idt, vector * 2 + 1)
    }
  }

  private func writeGDT() {
    store(0x00af_9b00_0000_ffff, Self.gdt, 1)  // kernel code, 64-bit
    store(0x00cf_9300_0000_ffff, Self.gdt, 2)  // kernel data
    store(0x00af_fb00_0000_ffff, Self.gdt, 3)  // user code, 64-bit
    store(0x00cf_f300_0000_ffff, Self.gdt, 4)  // user data
    // TR is loaded by the host with everything in it; the descriptor is there for form.
    store(0x0000_8900_0000_0067, Self.gdt, 5)
  }

  /// Where vCPU `index` has its TSS.
  static func tssAddress(_ index: Int) -> UInt64 { vcpuBase + UInt64(index) << 12 }

  /// Makes a zeroed frame the page of vCPU `index`.
  func addVCPUPage(_ index: Int, _ frame: FrameNumber) -> VCPUPage {
    precondition((0..<Self.maximumVCPUs).contains(index))
    let page = unsafe memory.pointer(to: frame)
    let stackTop = Self.tssAddress(index) + 4096
    unsafe page.storeBytes(of: UInt32(truncatingIfNeeded: stackTop), toByteOffset: 4, as: UInt32.self)
    unsafe page.storeBytes(of: UInt32(truncatingIfNeeded: stackTop >> 32), toByteOffset: 8, as: UInt32.self)
    unsafe page.storeBytes(of: UInt16(Self.ioBitmapOffset), toByteOffset: 102, as: UInt16.self)
    for byte in 0..<Self.ioBitmapBytes {
      let isCallByte = byte == Int(PM_CALL_PORT) / 8
      let bits: UInt8 = isCallByte ? ~(1 << UInt8(PM_CALL_PORT % 8)) : 0xff
      unsafe page.storeBytes(of: bits, toByteOffset: Self.ioBitmapOffset + byte, as: UInt8.self)
    }
    // Absent to present: seen without a zap.
    store(supervisorLeaf(frame, isWritable: true), Self.vcpuLeaves.advanced(by: index / 512), index % 512)
    return VCPUPage(memory: memory, frame: frame)
  }
}

/// What the processor pushed on the exception stack when it entered a stub.
struct ExceptionFrame {
  var errorCode: UInt64
  var rip: UInt64
  var codeSegment: UInt64
  var flags: UInt64
  var rsp: UInt64
}

// SAFETY: reads six words at the end of one frame that belongs to the vCPU for good.
@safe
struct VCPUPage {
  private let end: UnsafePointer<UInt64>
  /// Keeps the memory behind `end`.
  private let memory: PoolMemory

  fileprivate init(memory: PoolMemory, frame: FrameNumber) {
    self.memory = memory
    unsafe end = UnsafePointer((memory.pointer(to: frame) + 4096).assumingMemoryBound(to: UInt64.self))
  }

  /// The frame of the exception or interrupt that exited last. Words from the top: SS, RSP, RFLAGS, CS, RIP, code.
  @inline(__always)
  func exceptionFrame(hasErrorCode: Bool) -> ExceptionFrame {
    unsafe ExceptionFrame(
      errorCode: hasErrorCode ? end[-6] : 0, rip: end[-5], codeSegment: end[-4], flags: end[-3], rsp: end[-2])
  }
}
