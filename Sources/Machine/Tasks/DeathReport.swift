// The report on a task that dies: its registers and backtrace.

internal import CGuestABI
internal import CKVM
internal import KVM
internal import PhysicalMemory

extension VCPULoop {
  /// Makes the report. The registers must be those at the fault, and the task's memory must still be mapped.
  mutating func report(_ cause: DeathCause) -> TaskReport {
    let registers = cpu.registers
    return TaskReport(
      cause: cause.text(guarded: guardedStacks), number: cause.number, program: task.program.name,
      task: task.id, backtrace: backtrace(registers), registers: Self.list(registers, cpu.systemRegisters))
  }

  /// Stacks with guard pages below them. The library's handler stacks are segments of their own.
  private var guardedStacks: [GuardedStack] {
    let handlers = [
      ("the fault handler's stack", handler.stackTop), ("the upcall handlers' stack", upcall.returnPages.stackTop),
      ("the upcall handlers' stack", upcall.interrupts.stackTop),
    ]
    var stacks = [GuardedStack(name: "the stack", bottom: PM_STACK_TOP - UInt64(PM_STACK_PAGES) * 4096)]
    for segment in task.program.image.segments {
      for (name, top) in handlers where segment.pages.upperBound == top {
        stacks.append(GuardedStack(name: name, bottom: segment.pages.lowerBound))
      }
    }
    return stacks
  }

  /// Follows the chain of frame pointers while it leads upwards through readable memory.
  private func backtrace(_ registers: kvm_regs) -> [String] {
    var places = [describe(registers.rip)]
    var frame = registers.rbp
    while places.count < 32, frame & 7 == 0 {
      var bytes = [UInt8](repeating: 0, count: 16)
      guard (try? machine.server.readMemory(task.slot, GuestAddress(frame), into: &bytes)) != nil else { break }
      let next = Self.word(bytes, 0)
      let caller = Self.word(bytes, 8)
      guard caller != 0 else { break }
      // A return address is one past its call.
      places.append(describe(caller, call: caller - 1))
      guard next > frame else { break }
      frame = next
    }
    return places
  }

  private static func word(_ bytes: [UInt8], _ offset: Int) -> UInt64 {
    (0..<8).reversed().reduce(0) { $0 << 8 | UInt64(bytes[offset + $1]) }
  }

  private func describe(_ address: UInt64, call: UInt64? = nil) -> String {
    let symbol = task.program.symbol(at: call ?? address)
    return hexadecimal(address) + (symbol.map { " \($0)" } ?? "")
  }

  private static func list(_ r: kvm_regs, _ s: kvm_sregs) -> [(name: String, value: UInt64)] {
    [
      ("rax", r.rax), ("rbx", r.rbx), ("rcx", r.rcx), ("rdx", r.rdx), ("rsi", r.rsi), ("rdi", r.rdi),
      ("rbp", r.rbp), ("rsp", r.rsp), ("r8", r.r8), ("r9", r.r9), ("r10", r.r10), ("r11", r.r11),
      ("r12", r.r12), ("r13", r.r13), ("r14", r.r14), ("r15", r.r15), ("rip", r.rip), ("rflags", r.rflags),
      ("cr2", s.cr2),
    ]
  }
}
