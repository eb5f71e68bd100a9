// The calls to the server, one function each: the C calling convention puts the arguments in place already.
#include <physmem.h>

#include "library.h"

// A call changes only RAX, so there is nothing to save or to list as clobbered.
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

CALL(pm_error_t, pm_map_call, PM_CALL_CONTAINER_MAP, pm_container_t, pm_frame_t, uint32_t, void *, uint32_t)
CALL(pm_error_t, pm_unmap_call, PM_CALL_UNMAP, void *, uint32_t)
CALL(pm_error_t, pm_mapping, PM_CALL_MAPPING, const void *, struct pm_mapping *)
CALL(pm_error_t, pm_sample, PM_CALL_SAMPLE, const void *, uint32_t, uint32_t, uint8_t *)

CALL(pm_error_t, pm_container_copy, PM_CALL_CONTAINER_COPY, pm_container_t, pm_frame_t, pm_container_t, pm_frame_t,
     uint32_t, pm_frame_t *)
CALL(pm_error_t, pm_container_copy_scatter, PM_CALL_CONTAINER_COPY_SCATTER, pm_container_t, pm_frame_t, pm_container_t,
     const pm_frame_t *, uint32_t, pm_frame_t *)
CALL(pm_error_t, pm_container_copy_gather, PM_CALL_CONTAINER_COPY_GATHER, pm_container_t, const pm_frame_t *,
     pm_container_t, pm_frame_t, uint32_t, pm_frame_t *)
CALL(pm_error_t, pm_container_copy_scatter_gather, PM_CALL_CONTAINER_COPY_SCATTER_GATHER, pm_container_t,
     const pm_frame_t *, pm_container_t, const pm_frame_t *, uint32_t, pm_frame_t *)
CALL(pm_error_t, pm_release_data, PM_CALL_RELEASE_DATA, pm_container_t, const pm_frame_t *, uint32_t)
CALL(pm_error_t, pm_release_pages, PM_CALL_RELEASE_PAGES, pm_container_t, const pm_frame_t *, uint32_t)
CALL(pm_error_t, pm_recover_pages, PM_CALL_RECOVER_PAGES, pm_container_t, const pm_frame_t *, uint32_t, pm_frame_t *)
CALL(pm_error_t, pm_expired_pages, PM_CALL_EXPIRED_PAGES, pm_container_t, const pm_frame_t *, uint32_t, uint8_t *)

CALL(pm_error_t, pm_container_create_with, PM_CALL_CONTAINER_CREATE_WITH, pm_container_t *, uint32_t, pm_cap_t,
     pm_container_t *)
CALL(pm_error_t, pm_container_create_from, PM_CALL_CONTAINER_CREATE_FROM, pm_container_t *, pm_container_t, pm_frame_t,
     uint32_t, pm_cap_t, pm_container_t *)
CALL(pm_error_t, pm_container_create_gather, PM_CALL_CONTAINER_CREATE_GATHER, pm_container_t *, pm_container_t,
     const pm_frame_t *, uint32_t, pm_cap_t, pm_container_t *)
CALL(pm_error_t, pm_container_share, PM_CALL_CONTAINER_SHARE, pm_container_t, pm_cap_t, pm_container_t *)
CALL(pm_error_t, pm_container_revoke, PM_CALL_CONTAINER_REVOKE, pm_container_t)
CALL(pm_error_t, pm_container_lock, PM_CALL_CONTAINER_LOCK, pm_container_t, uint64_t)
CALL(pm_error_t, pm_container_unlock, PM_CALL_CONTAINER_UNLOCK, pm_container_t)
CALL(pm_error_t, pm_container_pin, PM_CALL_CONTAINER_PIN, pm_container_t, pm_frame_t, uint32_t, uint64_t, uint64_t *)
CALL(pm_error_t, pm_container_unpin, PM_CALL_CONTAINER_UNPIN, pm_container_t, pm_frame_t, uint32_t)

CALL(pm_error_t, pm_container_allocate_placed, PM_CALL_CONTAINER_ALLOCATE_PLACED, pm_container_t, pm_frame_t,
     uint32_t *, uint32_t, const struct pm_placement *)
CALL(pm_error_t, pm_placement_obstacle, PM_CALL_PLACEMENT_OBSTACLE, struct pm_obstacle *)
CALL(pm_error_t, pm_defragment, PM_CALL_DEFRAGMENT, pm_cap_t, uint32_t *)

CALL(pm_error_t, pm_get_control, PM_CALL_GET_CONTROL, pm_cap_t *)
CALL(pm_error_t, pm_get_policy_buffer_call, PM_CALL_GET_POLICY_BUFFER, pm_cap_t, void *, uint32_t *)
CALL(pm_error_t, pm_policy_commit, PM_CALL_POLICY_COMMIT, pm_cap_t)
CALL(pm_error_t, pm_task_name, PM_CALL_TASK_NAME, pm_cap_t, uint64_t, char *)

CALL(pm_error_t, pm_device_claim, PM_CALL_DEVICE_CLAIM, uint32_t)
CALL(pm_error_t, pm_device_info, PM_CALL_DEVICE_INFO, uint32_t, struct pm_device_info *)
CALL(pm_error_t, pm_device_release, PM_CALL_DEVICE_RELEASE, uint32_t)
CALL(pm_error_t, pm_device_read, PM_CALL_DEVICE_READ, uint32_t, uint32_t, uint32_t *)
CALL(pm_error_t, pm_device_write, PM_CALL_DEVICE_WRITE, uint32_t, uint32_t, uint32_t)
CALL(pm_error_t, pm_interrupt_wait, PM_CALL_INTERRUPT_WAIT, uint64_t)

CALL(pm_error_t, pm_endpoint_create, PM_CALL_ENDPOINT_CREATE, pm_cap_t *)
CALL(pm_error_t, pm_call, PM_CALL_CALL, pm_cap_t, struct pm_message *, uint64_t)
CALL(pm_error_t, pm_receive, PM_CALL_RECEIVE, pm_cap_t, struct pm_message *, uint64_t)
CALL(pm_error_t, pm_reply, PM_CALL_REPLY, struct pm_message *)
CALL(pm_error_t, pm_reply_receive, PM_CALL_REPLY_RECEIVE, pm_cap_t, struct pm_message *, uint64_t)
CALL(pm_error_t, pm_name_register, PM_CALL_NAME_REGISTER, const char *, pm_cap_t)
CALL(pm_error_t, pm_name_lookup, PM_CALL_NAME_LOOKUP, const char *, pm_cap_t *, uint64_t)
CALL(pm_error_t, pm_cap_drop, PM_CALL_CAP_DROP, pm_cap_t)

void pm_message_drop_caps(struct pm_message *message) {
  for (int i = 0; i < PM_MESSAGE_CAPS; i++) {
    if (message->caps[i]) (void)pm_cap_drop(message->caps[i]);
    message->caps[i] = PM_CAP_NONE;
  }
  message->moves = 0;
}
