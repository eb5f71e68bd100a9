// The supervisor half of every address space: all code that runs at CPL0, and the tables that the processor needs to
// enter it. All tasks share it, and none can access it.
//
// The CPL0 code is an array of stubs, one for each exception and one for all interrupts. A stub is one `out` to a port
// that identifies the exception. It exits to the host, which reads the frame that the processor pushed. To continue the
// task the host sets its registers, so nothing after the `out` ever runs.
//
//      ffff800000000000  stubs          16 bytes each
//      ffff800000001000  IDT            256 gates
//      ffff800000002000  GDT
//      ffff800000003000  unmapped       the target of `syscall`
//      ffff800000004000  key reset      clears the protection keys; tasks can execute it; only on hosts that have keys
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
  /// Frames at the pool's start reserved for the machine, including frame 0.
  static let reservedFrames = 16

  static let base: UInt64 = 0xffff_8000_0000_0000
  static let idtAddress = base + 0x1000
  static let gdtAddress = base + 0x2000
  static let gdtLimit: UInt16 = 7 * 8 - 1
  /// Where `syscall` continues on a KVM that runs tasks with the host's EFER: still at CPL3, with the return address in
  /// RCX and the flags in R11. The page is unmapped, so this is a page fault; `VCPULoop.systemCall` recognises its
  /// address.
  static let systemCallEntry = base + 0x3000
  /// Code at CPL3: WRPKRU with 0, then a null call.
  static let keyReset = base + 0x4000
  private static let vcpuBase = base + 0x20_0000
  /// As many vCPU pages as two leaf tables map.
  static let maximumVCPUs = 1024

  static let kernelCode: UInt16 = 0x08
  static let userCode: UInt16 = 0x18 | 3
  static let userData: UInt16 = 0x20 | 3
  static let taskState: UInt16 = 0x28
  static let tssLimit: UInt32 = UInt32(ioBitmapOffset + ioBitmapBytes - 1)
  private static let ioBitmapOffset = 104
  /// Up to the call port's byte, and a final byte of ones.
  private static let ioBitmapBytes = Int(PM_CALL_PORT) / 8 + 2

  /// Stubs write to this port plus the exception's vector, or plus 32 for an interrupt.
  static let exceptionPorts: UInt16 = 0x80
  static let interruptPort: UInt16 = exceptionPorts + 32
  /// The vector of upcalls; any vector from 32 would do.
  static let interruptVector: UInt8 = 32

  private static let stubs = FrameNumber(1)
  private static let idt = FrameNumber(2)
  private static let gdt = FrameNumber(3)
  /// The table that each root's entry 256 names, the table below it, and the leaf tables: for the fixed pages, then for
  /// the vCPU pages.
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
      // out %al, $port; then hlt, which is never reached.
      let code = UInt64(0xe6) | UInt64(Self.exceptionPorts + UInt16(index)) << 8 | 0xf4 << 16
      store(code, Self.stubs, index * 2)
    }
  }

  private func writeIDT() {
    for vector in 0..<256 {
      let handler = Self.base + UInt64(min(vector, 32)) * 16
      // An interrupt gate, on the TSS's stack. DPL 0 reserves it for the processor, except for breakpoints: a task may
      // execute INT3, which checks the gate's DPL like INT n (Intel SDM volume 2).
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
    // The host loads all of TR itself; the descriptor only completes the GDT.
    store(0x0000_8900_0000_0067, Self.gdt, 5)
  }

  /// Address of vCPU `index`'s TSS.
  static func tssAddress(_ index: Int) -> UInt64 { vcpuBase + UInt64(index) << 12 }

  /// Initialises a zeroed frame as the page of vCPU `index`.
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
    // Absent to present needs no zap.
    store(supervisorLeaf(frame, isWritable: true), Self.vcpuLeaves.advanced(by: index / 512), index % 512)
    return VCPUPage(memory: memory, frame: frame)
  }
}

/// What the processor pushes on the exception stack when it enters a stub.
struct ExceptionFrame {
  var errorCode: UInt64
  var rip: UInt64
  var codeSegment: UInt64
  var flags: UInt64
  var rsp: UInt64
}

// SAFETY: reads six words at the end of one frame, which belongs to the vCPU permanently.
@safe
struct VCPUPage {
  private let end: UnsafePointer<UInt64>
  /// Keeps the memory behind `end` alive.
  private let memory: PoolMemory

  fileprivate init(memory: PoolMemory, frame: FrameNumber) {
    self.memory = memory
    unsafe end = UnsafePointer((memory.pointer(to: frame) + 4096).assumingMemoryBound(to: UInt64.self))
  }

  /// The frame of the last exception or interrupt. Words from the top: SS, RSP, RFLAGS, CS, RIP, error code.
  @inline(__always)
  func exceptionFrame(hasErrorCode: Bool) -> ExceptionFrame {
    unsafe ExceptionFrame(
      errorCode: hasErrorCode ? end[-6] : 0, rip: end[-5], codeSegment: end[-4], flags: end[-3], rsp: end[-2])
  }
}
