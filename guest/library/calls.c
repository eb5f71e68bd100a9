// The calls to the server, one function each: the arguments are where the C calling order has put them already.
#include <physmem.h>

// Only RAX changes over a call, so nothing need be saved or listed.
#define CALL(result, name, number, ...)                                         \
  __attribute__((naked)) result name(__VA_ARGS__) {                             \
    __asm__("mov %0, %%eax\n\tout %%al, %1\n\tret" ::"i"(number), "i"(PM_CALL_PORT)); \
  }

CALL(pm_error_t, pm_write, PM_CALL_WRITE, const void *, size_t)
CALL(void, pm_sleep, PM_CALL_SLEEP, uint64_t)
CALL(pm_error_t, pm_task_info, PM_CALL_TASK_INFO, struct pm_task_info *)

CALL(pm_error_t, pm_container_create, PM_CALL_CONTAINER_CREATE, pm_container_t *)
CALL(pm_error_t, pm_container_destroy, PM_CALL_CONTAINER_DESTROY, pm_container_t)
CALL(pm_error_t, pm_container_allocate, PM_CALL_CONTAINER_ALLOCATE, pm_container_t, pm_frame_t, uint32_t *, uint32_t)
CALL(pm_error_t, pm_container_deallocate, PM_CALL_CONTAINER_DEALLOCATE, pm_container_t, pm_frame_t, uint32_t *,
     uint32_t)

CALL(pm_error_t, pm_container_map, PM_CALL_CONTAINER_MAP, pm_container_t, pm_frame_t, uint32_t, void *, uint32_t)
CALL(pm_error_t, pm_unmap, PM_CALL_UNMAP, void *, uint32_t)
CALL(pm_error_t, pm_mapping, PM_CALL_MAPPING, const void *, struct pm_mapping *)
