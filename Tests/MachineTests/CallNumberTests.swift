// The numbers of the machine's own calls are those of the header.

import CGuestABI
import PhysicalMemory
import Testing

@testable import Machine

struct CallNumberTests {
  @Test("the machine's call numbers are the header's, and none is the server's too") func numbers() {
    let expected: [MachineCall: pm_call] = [
      .null: PM_CALL_NULL, .exit: PM_CALL_EXIT, .write: PM_CALL_WRITE, .clock: PM_CALL_CLOCK, .sleep: PM_CALL_SLEEP,
      .onFault: PM_CALL_ON_FAULT, .faultReturn: PM_CALL_FAULT_RETURN, .onReturnPages: PM_CALL_ON_RETURN_PAGES,
      .upcallReturn: PM_CALL_UPCALL_RETURN, .onInterrupt: PM_CALL_ON_INTERRUPT,
      .interruptWait: PM_CALL_INTERRUPT_WAIT, .deviceClaim: PM_CALL_DEVICE_CLAIM,
      .deviceRelease: PM_CALL_DEVICE_RELEASE, .deviceRead: PM_CALL_DEVICE_READ,
      .deviceWrite: PM_CALL_DEVICE_WRITE, .deviceInfo: PM_CALL_DEVICE_INFO,
    ]
    for number in MachineCall.allCases {
      #expect(expected[number]?.rawValue == number.rawValue, "\(number)")
      #expect(ServerCallNumber(rawValue: number.rawValue) == nil, "\(number)")
    }
  }
}
