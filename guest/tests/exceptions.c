// Forbidden instructions, and exceptions that a task causes: they end the task and harm nothing else.
#include "processor.h"
#include "test.h"

static int give_up(const struct pm_fault *fault) {
  (void)fault;
  return 1;
}

/// A case that dies of some instructions; if it survives, it exits with 0 in spite of changed registers.
#define DIES(name, expected, summary, instructions)                             \
  PM_TEST(name, expected, 1, summary) {                                         \
    __asm__ volatile(instructions);                                             \
    __asm__ volatile("out %%al, %1" ::"a"(PM_CALL_EXIT), "i"(PM_CALL_PORT), "D"(0)); \
  }

// ---- arithmetic -------------------------------------------------------------------

DIES(divide_by_zero, DIES_OF_DIVISION, "Exceptions: division by zero",
     "xor %ecx, %ecx\n\tmov $1, %eax\n\tcltd\n\tidiv %ecx")
DIES(quotient_too_large, DIES_OF_DIVISION, "Exceptions: the least integer divided by -1",
     "mov $0x80000000, %eax\n\tcltd\n\tmov $-1, %ecx\n\tidiv %ecx")
DIES(vector_division, DIES_OF_VECTOR_ARITHMETIC, "Exceptions: division by zero in a vector, not masked",
     "push $0x1d00\n\tldmxcsr (%rsp)\n\txorps %xmm0, %xmm0\n\tmov $1, %eax\n\tcvtsi2ss %eax, %xmm1\n\t"
     "divss %xmm0, %xmm1")
DIES(x87_division, 144, "Exceptions: division by zero in the x87, not masked",
     "push $0x37b\n\tfldcw (%rsp)\n\tfld1\n\tfldz\n\tfdivrp\n\tfwait")

// ---- traps ------------------------------------------------------------------------

DIES(breakpoint, DIES_OF_BREAKPOINT, "Exceptions: a breakpoint", "int3")
DIES(breakpoint_as_interrupt, 131 or 134 or 141, "Exceptions: a breakpoint as a software interrupt", ".byte 0xcd, 3")
DIES(overflow, 132 or 134 or 141, "Exceptions: a software interrupt to the overflow vector", "int $4")
DIES(debug_trap, DIES_OF_DEBUG_TRAP, "Exceptions: int1, for hardware debuggers", ".byte 0xf1")
DIES(single_step_of_call, DIES_OF_DEBUG_TRAP, "Exceptions: the trap flag over a call",
     "pushf\n\torl $0x100, (%rsp)\n\tmov $0, %eax\n\tpopf\n\tout %al, $0x50\n\tnop")
DIES(single_step_of_exit, 5, "Exceptions: the trap flag over the last call",
     "mov $1, %eax\n\tmov $5, %edi\n\tpushf\n\torl $0x100, (%rsp)\n\tpopf\n\tout %al, $0x50")
DIES(single_step, DIES_OF_DEBUG_TRAP, "Exceptions: the trap flag", "pushf\n\torl $0x100, (%rsp)\n\tpopf\n\tnop\n\tnop")
DIES(undefined, DIES_OF_INVALID_INSTRUCTION, "Exceptions: an undefined instruction", "ud2")
DIES(long_instruction, DIES_OF_PROTECTION_FAULT, "Exceptions: an instruction of more than 15 bytes",
     ".fill 16, 1, 0x66\n\tnop")
DIES(lock_prefix, DIES_OF_INVALID_INSTRUCTION, "Exceptions: an invalid lock prefix", ".byte 0xf0, 0x90")
DIES(interrupt_32, 134 or 141, "Exceptions: a software interrupt to an injected interrupt's vector", "int $0x20")
DIES(interrupt_128, 134 or 141, "Exceptions: a software interrupt", "int $0x80")
DIES(interrupt_page_fault, 134 or 141, "Exceptions: a software interrupt to the page fault vector", "int $14")
DIES(interrupt_double_fault, 134 or 141, "Exceptions: a software interrupt to the double fault vector", "int $8")
DIES(interrupt_last, 134 or 141, "Exceptions: the last software interrupt", "int $255")
DIES(system_call, DIES_OF_INVALID_INSTRUCTION, "Exceptions: syscall is invalid", "syscall")
DIES(system_call_odd_flags, DIES_OF_INVALID_INSTRUCTION, "Exceptions: syscall is invalid with odd flags",
     "pushf\n\torq $0x244c00, (%rsp)\n\tpopf\n\tsyscall")
PM_TEST(system_call_handled, DIES_OF_INVALID_INSTRUCTION, 1,
        "Exceptions: syscall is invalid for a task with a fault handler") {
  CHECK_OK(pm_on_fault(give_up));
  __asm__ volatile("syscall" ::: "rcx", "r11", "memory");
}
DIES(system_call_traced, 129 or 134, "Exceptions: syscall is invalid under the trap flag",
     "pushf\n\torl $0x100, (%rsp)\n\tpopf\n\tsyscall\n\tnop")
DIES(jump_to_system_calls, DIES_OF_PAGE_FAULT, "Safety: a jump to the address in LSTAR is a page fault",
     "movabs $0xffff800000003000, %rax\n\txor %ecx, %ecx\n\tjmp *%rax")
DIES(system_enter, 134 or 141, "Exceptions: sysenter is invalid", "sysenter")
PM_TEST(alignment, 0 or 145, 1, "Exceptions: the alignment-check flag harms only the task") {
  static char bytes[16];
  __asm__ volatile("pushf\n\torl $0x40000, (%%rsp)\n\tpopf\n\tmov %0, %%eax\n\tpushf\n\tandl $~0x40000, (%%rsp)\n\tpopf"
                   ::"m"(*(int *)(bytes + 1))
                   : "rax", "memory");
}

// ---- privileged instructions ---------------------------------------------------------

DIES(halt, DIES_OF_PROTECTION_FAULT, "Safety: hlt", "hlt")
DIES(disable_interrupts, DIES_OF_PROTECTION_FAULT, "Safety: cli", "cli")
DIES(enable_interrupts, DIES_OF_PROTECTION_FAULT, "Safety: sti", "sti")
/// Dies where the processor supports UMIP.
#define HIDES(name, summary, instruction)                          \
  PM_TEST(name, 0 or 141, 1, summary) {                            \
    static uint8_t place[16];                                      \
    __asm__ volatile(instruction ::"r"(place) : "rax", "memory");  \
    CHECK(!has_instruction_prevention());                          \
  }
HIDES(store_gdt, "Safety: sgdt", "sgdt (%0)")
HIDES(store_idt, "Safety: sidt", "sidt (%0)")
HIDES(store_ldt, "Safety: sldt", "sldt %%eax")
HIDES(store_task_register, "Safety: str", "str %%eax")
HIDES(store_machine_status, "Safety: smsw", "smsw %%rax")
DIES(raise_io_privilege, DIES_OF_PROTECTION_FAULT, "Safety: popf does not raise the I/O privilege",
     "pushf\n\torl $0x3000, (%rsp)\n\tpopf\n\tcli")
DIES(read_msr, DIES_OF_PROTECTION_FAULT, "Safety: rdmsr", "mov $0xc0000080, %ecx\n\trdmsr")
DIES(write_msr, DIES_OF_PROTECTION_FAULT, "Safety: wrmsr", "mov $0xc0000082, %ecx\n\txor %eax, %eax\n\twrmsr")
DIES(read_cr0, DIES_OF_PROTECTION_FAULT, "Safety: reading CR0", "mov %cr0, %rax")
DIES(write_cr0, DIES_OF_PROTECTION_FAULT, "Safety: writing CR0", "xor %eax, %eax\n\tmov %rax, %cr0")
DIES(read_cr3, DIES_OF_PROTECTION_FAULT, "Safety: reading CR3", "mov %cr3, %rax")
DIES(write_cr3, DIES_OF_PROTECTION_FAULT, "Safety: writing CR3", "xor %eax, %eax\n\tmov %rax, %cr3")
DIES(write_cr4, DIES_OF_PROTECTION_FAULT, "Safety: writing CR4", "xor %eax, %eax\n\tmov %rax, %cr4")
DIES(read_dr7, DIES_OF_PROTECTION_FAULT, "Safety: reading DR7", "mov %dr7, %rax")
DIES(write_dr0, DIES_OF_PROTECTION_FAULT, "Safety: writing DR0", "xor %eax, %eax\n\tmov %rax, %dr0")
DIES(load_gdt, DIES_OF_PROTECTION_FAULT, "Safety: lgdt", "sub $16, %rsp\n\tlgdt (%rsp)")
DIES(load_idt, DIES_OF_PROTECTION_FAULT, "Safety: lidt", "sub $16, %rsp\n\tlidt (%rsp)")
DIES(load_task_register, DIES_OF_PROTECTION_FAULT, "Safety: ltr", "mov $0x28, %eax\n\tltr %ax")
DIES(load_ldt, DIES_OF_PROTECTION_FAULT, "Safety: lldt", "xor %eax, %eax\n\tlldt %ax")
DIES(load_machine_status, DIES_OF_PROTECTION_FAULT, "Safety: lmsw", "xor %eax, %eax\n\tlmsw %ax")
DIES(clear_task_switched, DIES_OF_PROTECTION_FAULT, "Safety: clts", "clts")
DIES(invalidate_page, DIES_OF_PROTECTION_FAULT, "Safety: invlpg", "invlpg (%rsp)")
DIES(invalidate_caches, DIES_OF_PROTECTION_FAULT, "Safety: wbinvd", "wbinvd")
DIES(read_counter, DIES_OF_PROTECTION_FAULT, "Safety: rdpmc", "xor %ecx, %ecx\n\trdpmc")
DIES(read_cr8, DIES_OF_PROTECTION_FAULT, "Safety: reading CR8", "mov %cr8, %rax")
DIES(monitor, 134 or 141, "Safety: monitor", "mov %rsp, %rax\n\txor %ecx, %ecx\n\txor %edx, %edx\n\tmonitor")
DIES(wait, 134 or 141, "Safety: mwait", "xor %eax, %eax\n\txor %ecx, %ecx\n\tmwait")
DIES(resume_from_management, DIES_OF_INVALID_INSTRUCTION, "Safety: rsm", "rsm")
DIES(allow_supervisor_access, 134 or 141, "Safety: stac", "stac")
PM_TEST(write_protection_keys, 0 or 134, 1, "Safety: wrpkru is invalid, or the protection keys are the task's own") {
  __asm__ volatile("wrpkru" ::"a"(0x55555554), "c"(0), "d"(0) : "memory");
  CHECK(has_protection_keys());
  uint32_t keys, unused;
  __asm__ volatile("rdpkru" : "=a"(keys), "=d"(unused) : "c"(0));
  CHECK_EQ(keys, 0x55555554);
}
DIES(call_to_hypervisor, 0 or 134 or 141, "Safety: vmcall", "vmcall")
DIES(call_to_other_hypervisor, 0 or 134 or 141, "Safety: vmmcall", "vmmcall")
DIES(forced_emulation, DIES_OF_INVALID_INSTRUCTION, "Safety: KVM's own prefix for instructions to emulate",
     "ud2\n\t.ascii \"kvm\"\n\tcpuid")
DIES(swap_gs, DIES_OF_PROTECTION_FAULT, "Safety: swapgs", "swapgs")
DIES(set_extended_control, 134 or 141, "Safety: xsetbv", "xor %ecx, %ecx\n\txor %edx, %edx\n\tmov $1, %eax\n\txsetbv")

// ---- other privilege levels ----------------------------------------------------------------------

DIES(wild_segment, DIES_OF_PROTECTION_FAULT, "Safety: a selector beyond the table", "mov $0xfff8, %eax\n\tmov %ax, %ds")
DIES(supervisor_stack_segment, DIES_OF_PROTECTION_FAULT, "Safety: the supervisor's stack segment",
     "mov $0x10, %eax\n\tmov %ax, %ss")
DIES(far_return_to_supervisor, DIES_OF_PROTECTION_FAULT, "Safety: a far return to the supervisor's code segment",
     "push $0x8\n\tlea 1f(%rip), %rax\n\tpush %rax\n\tlretq\n1:")
DIES(far_return_to_data, DIES_OF_PROTECTION_FAULT, "Safety: a far return to a data segment",
     "push $0x23\n\tlea 1f(%rip), %rax\n\tpush %rax\n\tlretq\n1:")
DIES(null_stack_segment, DIES_OF_PROTECTION_FAULT, "Safety: a null stack segment", "mov $3, %eax\n\tmov %eax, %ss")
DIES(nested_task, DIES_OF_PROTECTION_FAULT, "Safety: an interrupt return from a nested task",
     "pushf\n\torl $0x4000, (%rsp)\n\tpopf\n\tiretq")
DIES(virtual_8086, DIES_OF_PROTECTION_FAULT, "Safety: an interrupt return to virtual-8086 mode, with I/O privilege",
     "mov %ss, %eax\n\tmov %rsp, %rcx\n\tpush %rax\n\tpush %rcx\n\tpushf\n\torl $0x33000, (%rsp)\n\t"
     "mov %cs, %eax\n\tpush %rax\n\tlea 1f(%rip), %rax\n\tpush %rax\n\tiretq\n1:\tcli")
DIES(interrupt_return_to_supervisor, DIES_OF_PROTECTION_FAULT, "Safety: an interrupt return to the supervisor",
     "mov %rsp, %rcx\n\tpush $0x10\n\tpush %rcx\n\tpushf\n\tpush $0x8\n\tlea 1f(%rip), %rax\n\tpush %rax\n\tiretq\n1:")
DIES(system_return, 134 or 141, "Safety: sysret", "lea 1f(%rip), %rcx\n\tsysretq\n1:")

// ---- ports -------------------------------------------------------------------------------

DIES(out_0, DIES_OF_PROTECTION_FAULT, "Safety: the first port", "out %al, $0")
DIES(out_next, DIES_OF_PROTECTION_FAULT, "Safety: the port after the call port", "out %al, $0x51")
DIES(out_before, DIES_OF_PROTECTION_FAULT, "Safety: the port before the call port", "out %al, $0x4f")
DIES(out_page_fault, DIES_OF_PROTECTION_FAULT, "Safety: the port of the page fault stub",
     "out %al, $0x8e")
DIES(out_first_exception, DIES_OF_PROTECTION_FAULT, "Safety: the port of the first exception's stub",
     "mov $0x80, %edx\n\tout %al, %dx")
DIES(out_interrupt, DIES_OF_PROTECTION_FAULT, "Safety: the port of the interrupts' stub", "out %al, $0xa0")
DIES(out_last, DIES_OF_PROTECTION_FAULT, "Safety: the last port", "mov $0xffff, %edx\n\tout %al, %dx")
DIES(out_serial, DIES_OF_PROTECTION_FAULT, "Safety: the serial line's port", "mov $0x3f8, %edx\n\tout %al, %dx")
DIES(out_word, DIES_OF_PROTECTION_FAULT, "Safety: a word to the call port reaches the next one",
     "mov $0, %eax\n\tout %ax, $0x50")
DIES(out_double_word, DIES_OF_PROTECTION_FAULT, "Safety: four bytes to the call port",
     "mov $0, %eax\n\tout %eax, $0x50")
DIES(out_word_before, DIES_OF_PROTECTION_FAULT, "Safety: a word that ends with the call port", "out %ax, $0x4f")
DIES(in_call_port, DIES_OF_PROTECTION_FAULT, "Safety: reading the call port", "in $0x50, %al")
DIES(in_other_port, DIES_OF_PROTECTION_FAULT, "Safety: reading another port", "in $0x60, %al")
DIES(in_string, DIES_OF_PROTECTION_FAULT, "Safety: a string from the call port",
     "lea -64(%rsp), %rdi\n\tmov $0x50, %edx\n\tmov $8, %ecx\n\trep insb")
PM_TEST(call_by_register_port, 0, 1, "The call port in DX is a call as well") {
  pm_error_t error = PM_EINVAL;
  __asm__ volatile("out %%al, %%dx" : "=a"(error) : "0"(PM_CALL_NULL), "d"(PM_CALL_PORT) : "memory");
  CHECK_OK(error);
}

// ---- allowed instructions -----------------------------------------------------------------------

PM_TEST(harmless, 0, 1, "cpuid, rdtsc, pause and prefetches of any address are harmless") {
  __asm__ volatile("xor %%eax, %%eax\n\tcpuid\n\trdtsc\n\tpause\n\tprefetcht0 (%0)\n\tprefetcht0 (%1)"
                   ::"r"(0xffff800000000000), "r"(0)
                   : "rax", "rbx", "rcx", "rdx", "memory");
}
PM_TEST(identification, 0, 1, "cpuid gives the same answer each time, even while the server unmaps pages") {
  uint32_t first[4] = {};
  for (int i = 0; i < 20000; i++) {
    uint32_t a = 0, b, c = 0, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    if (i == 0) memcpy(first, (uint32_t[]){a, b, c, d}, sizeof first);
    CHECK(a == first[0] && b == first[1] && c == first[2] && d == first[3]);
  }
}
PM_TEST(own_flags, 0, 1, "Direction and arithmetic flags are the task's own, over a call too") {
  uint64_t before = 0, after = 0;
  __asm__ volatile(
      "std\n\tstc\n\tpushf\n\tpop %0\n\tmov %2, %%eax\n\tout %%al, %3\n\tpushf\n\tpop %1\n\tcld"
      : "=&r"(before), "=&r"(after)
      : "i"(PM_CALL_NULL), "i"(PM_CALL_PORT)
      : "rax", "cc", "memory");
  CHECK_EQ(before, after);
  CHECK_EQ(after & 0x401, 0x401);
}
