// Withdrawals: frames needed on behalf of a task but charged to no task: page tables beyond the reserve, the policy
// buffer, a vCPU's pages. They reduce what tasks can have. If all unclaimed frames are lent, other tasks give some back
// first, as for a request (ReclaimRound.swift).
//
// The life of a withdrawal that must wait:
//  1. lacking: the call or access failed with `.waitForFrames`. Nothing is demanded until the task waits.
//  2. waiting: in `requests`, and promised, so that no other task gets the same frames.
//  3. withdrawn for the task, which is woken.
//  4. used: the call or access is retried and takes them; `endRequest` gives back the rest.

extension ServerState {
  /// Withdraws frames, first those already withdrawn for the task. False: there are not enough.
  mutating func withdraw(_ count: Int, for task: TaskSlot) -> Bool {
    let used = min(count, tasks[task].withdrawn)
    guard count == used || ledger.withdraw(count - used) else { return false }
    tasks[task].withdrawn -= used
    return true
  }

  /// The error of a failed withdrawal: `.waitForFrames` if other tasks can give back what is missing, otherwise
  /// `.noMemory`.
  mutating func lack(_ task: TaskSlot, _ count: Int) -> CallFailure {
    if isForAnother { return .noMemory }
    guard canRequestWithdrawal(task, count) else {
      endWithdrawal(task)
      serveRequests()
      return .noMemory
    }
    tasks[task].lacking = count
    return .waitForFrames
  }

  /// A borrower never blocks here: it may itself be the victim, and a blocked call delays upcalls.
  private func canRequestWithdrawal(_ task: TaskSlot, _ count: Int) -> Bool {
    count > ledger.free && count <= ledger.unclaimed && tasks[task].entitlement.extra == 0
  }

  /// Queues a request for the frames that the task lacks, unless they are free by now.
  mutating func requestWithdrawal(_ task: TaskSlot) {
    let count = tasks[task].lacking
    tasks[task].lacking = 0
    guard canRequestWithdrawal(task, count) else { return }
    ledger.promise(count)
    reclaim.requests.append(FrameRequest(task: task, count: count, isWithdrawal: true))
  }

  /// Gives back what the task waits for or has not used. The caller removes its requests.
  mutating func endWithdrawal(_ task: TaskSlot) {
    for request in reclaim.requests where request.isWithdrawal && request.task == task {
      ledger.promise(-request.count)
    }
    ledger.restore(tasks[task].withdrawn)
    tasks[task].withdrawn = 0
    tasks[task].lacking = 0
  }
}
