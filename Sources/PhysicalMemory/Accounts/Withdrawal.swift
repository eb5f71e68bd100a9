// Frames that go to nobody's account, wanted for a task's sake: page tables beyond the reserve, the policy buffer, what
// a processor needs. They are withdrawn from what tasks can have. Where all that is not claimed is lent, others give
// some back first, as for a request (ReclaimRound.swift).
//
// The life of a withdrawal that must wait:
//  1. lacking: the call or access has failed with `.waitForFrames`. Nothing is asked for unless somebody waits.
//  2. waiting: in `requests`, and promised, so that nobody else is promised the same frames.
//  3. withdrawn for the task, which is woken.
//  4. used: the call or access is tried again and takes them; `endRequest` gives back what it leaves.

extension ServerState {
  /// Takes frames from what tasks can have: first of those withdrawn for the task. False: there are not so many.
  mutating func withdraw(_ count: Int, for task: TaskSlot) -> Bool {
    let used = min(count, tasks[task].withdrawn)
    guard count == used || ledger.withdraw(count - used) else { return false }
    tasks[task].withdrawn -= used
    return true
  }

  /// Says what a withdrawal that failed is to answer: `.waitForFrames`, if others can give back what is missing.
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

  /// Who has extra frames waits for nobody: it may be the one who is asked, and a call that waits keeps upcalls
  /// waiting.
  private func canRequestWithdrawal(_ task: TaskSlot, _ count: Int) -> Bool {
    count > ledger.free && count <= ledger.unclaimed && tasks[task].entitlement.extra == 0
  }

  /// The task waits for what it lacks, if that is not there by now.
  mutating func requestWithdrawal(_ task: TaskSlot) {
    let count = tasks[task].lacking
    tasks[task].lacking = 0
    guard canRequestWithdrawal(task, count) else { return }
    ledger.promise(count)
    reclaim.requests.append(FrameRequest(task: task, count: count, isWithdrawal: true))
  }

  /// What the task waits for, or has not used, goes back. Its requests are removed by the caller.
  mutating func endWithdrawal(_ task: TaskSlot) {
    for request in reclaim.requests where request.isWithdrawal && request.task == task {
      ledger.promise(-request.count)
    }
    ledger.restore(tasks[task].withdrawn)
    tasks[task].withdrawn = 0
    tasks[task].lacking = 0
  }
}
