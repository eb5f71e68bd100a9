// The numbers of calls are those of the header.

import CGuestABI
import PhysicalMemory
import Testing

struct CallNumberTests {
  @Test("the server's call numbers are the header's") func numbers() {
    let expected: [ServerCallNumber: pm_call] = [
      .taskInfo: PM_CALL_TASK_INFO, .containerCreate: PM_CALL_CONTAINER_CREATE,
      .containerDestroy: PM_CALL_CONTAINER_DESTROY, .containerAllocate: PM_CALL_CONTAINER_ALLOCATE,
      .containerDeallocate: PM_CALL_CONTAINER_DEALLOCATE, .containerCreateWith: PM_CALL_CONTAINER_CREATE_WITH,
      .containerCreateFrom: PM_CALL_CONTAINER_CREATE_FROM, .containerCreateGather: PM_CALL_CONTAINER_CREATE_GATHER,
      .containerCopy: PM_CALL_CONTAINER_COPY, .containerCopyScatter: PM_CALL_CONTAINER_COPY_SCATTER,
      .containerCopyGather: PM_CALL_CONTAINER_COPY_GATHER,
      .containerCopyScatterGather: PM_CALL_CONTAINER_COPY_SCATTER_GATHER, .containerShare: PM_CALL_CONTAINER_SHARE,
      .containerRevoke: PM_CALL_CONTAINER_REVOKE, .containerLock: PM_CALL_CONTAINER_LOCK,
      .containerUnlock: PM_CALL_CONTAINER_UNLOCK, .containerPin: PM_CALL_CONTAINER_PIN,
      .containerUnpin: PM_CALL_CONTAINER_UNPIN, .containerAllocatePlaced: PM_CALL_CONTAINER_ALLOCATE_PLACED,
      .placementObstacle: PM_CALL_PLACEMENT_OBSTACLE, .defragment: PM_CALL_DEFRAGMENT,
      .containerMap: PM_CALL_CONTAINER_MAP, .unmap: PM_CALL_UNMAP, .mapping: PM_CALL_MAPPING,
      .sample: PM_CALL_SAMPLE, .releaseData: PM_CALL_RELEASE_DATA, .releasePages: PM_CALL_RELEASE_PAGES,
      .recoverPages: PM_CALL_RECOVER_PAGES, .expiredPages: PM_CALL_EXPIRED_PAGES, .getControl: PM_CALL_GET_CONTROL,
      .getPolicyBuffer: PM_CALL_GET_POLICY_BUFFER, .policyCommit: PM_CALL_POLICY_COMMIT,
      .taskName: PM_CALL_TASK_NAME, .endpointCreate: PM_CALL_ENDPOINT_CREATE, .call: PM_CALL_CALL,
      .receive: PM_CALL_RECEIVE, .reply: PM_CALL_REPLY, .replyReceive: PM_CALL_REPLY_RECEIVE,
      .nameRegister: PM_CALL_NAME_REGISTER, .nameLookup: PM_CALL_NAME_LOOKUP, .capDrop: PM_CALL_CAP_DROP,
    ]
    for number in ServerCallNumber.allCases { #expect(expected[number]?.rawValue == number.rawValue, "\(number)") }
  }
}
