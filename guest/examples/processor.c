// The processor state that a task can see but does not own. On most KVMs all of it belongs to the guest; a KVM in
// software may show the host's (docs/internals/notes/task-state.md).
#include <physmem.h>

PM_PROGRAM("Prints the processor state that a task can read; `processor tables` dies if it may not read the tables.");

static void identify(uint32_t leaf, uint32_t registers[4]) {
  registers[0] = leaf;
  registers[2] = 0;
  __asm__ volatile("cpuid" : "+a"(registers[0]), "=b"(registers[1]), "+c"(registers[2]), "=d"(registers[3]));
}

static uint32_t processor_number(void) {
  uint32_t low, high, number;
  __asm__ volatile("rdtscp" : "=a"(low), "=d"(high), "=c"(number));
  return number;
}

static uint32_t protection_keys(void) {
  uint32_t keys, high;
  __asm__ volatile("rdpkru" : "=a"(keys), "=d"(high) : "c"(0));
  return keys;
}

int main(int argc, char **argv) {
  (void)argv;
  if (argc > 1) {
    uint64_t status;
    __asm__ volatile("smsw %0" : "=r"(status));
    printf("machine-status %#lx\n", status);
    return 0;
  }
  uint32_t basic[4], features[4], extended[4];
  identify(1, basic);
  identify(7, features);
  identify(0x80000001, extended);
  uint64_t cs, ss;
  __asm__ volatile("mov %%cs, %0\n\tmov %%ss, %1" : "=r"(cs), "=r"(ss));
  printf("cs %#lx\nss %#lx\n", cs & 0xffff, ss & 0xffff);
  printf("features %#x\n", features[1]);
  if (extended[3] & 1u << 27) printf("processor-number %#x\n", processor_number());
  if (features[2] & 1u << 4) printf("protection-keys %#x\n", protection_keys());
  if (basic[2] & 1u << 27) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    printf("components %#x\n", low);
  }
  return 0;
}
