// The C interface as imported to Swift: if a function and a structure share a name, Swift sees only the structure.
#include <physmem.h>

static inline pm_error_t pm_get_task_info(struct pm_task_info *info) { return pm_task_info(info); }

static inline pm_error_t pm_get_mapping(const void *address, struct pm_mapping *mapping) {
  return pm_mapping(address, mapping);
}
