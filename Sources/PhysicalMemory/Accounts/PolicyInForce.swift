// What the holder of control does with its buffer (R4, R7, R14), and how it learns what there is to decide. Nothing
// written to the buffer counts before a commit, and a commit takes nothing from anybody by itself: who has more than its
// new guarantee has extra frames, which are asked back when somebody has a claim to them.

internal import CGuestABI
internal import GuestMemory

/// What the buffer says of one task.
private struct PolicyProposal {
  let slot: TaskSlot
  let guaranteed: Int
  let mayUseExtra: Bool
  let swapQuota: Int
}

extension ServerState {
  /// How long a launch waits for the policy server, in nanoseconds.
  private static let launchPatience: UInt64 = 50_000_000

  // MARK: Commit

  /// Puts into force what the buffer says, all of it or nothing. PM_ENOMEM: more would be promised than there is;
  /// PM_ENOENT: there is no buffer.
  mutating func commitPolicy(_ task: TaskSlot, _ handle: Handle) throws(CallFailure) {
    try checkControl(task, handle)
    guard let proposals = try readPolicy() else { throw .noEntry }
    // First what goes down: so the sum is never more than it was, or will be.
    for isRaised in [false, true] {
      for proposal in proposals
      where (proposal.guaranteed > tasks[proposal.slot].entitlement.claim) == isRaised {
        let isSet = ledger.set(
          &tasks[proposal.slot].entitlement, guaranteed: proposal.guaranteed, hasContract: true)
        precondition(isSet, "a policy that was checked overcommits")
      }
    }
    for proposal in proposals {
      tasks[proposal.slot].entitlement.mayUseExtra = proposal.mayUseExtra
      tasks[proposal.slot].entitlement.swapQuota = proposal.swapQuota
      limitDemands(proposal.slot)
    }
    policy.isControlled = true
    statistics.policyCommits += 1
    correctEntries()
    releaseLaunches()
    reviewRequests()
  }

  /// A copy of the buffer, checked; nil: there is none. Entries are found by their slots: what the holder wrote to the
  /// server's fields does not count.
  private func readPolicy() throws(CallFailure) -> [PolicyProposal]? {
    guard let buffer = policy.buffer else { return nil }
    var bytes = [UInt8](repeating: 0, count: containers[buffer.slot].frames.count << 12)
    for id in 0..<containers[buffer.slot].frames.count {
      guard let content = containers[buffer.slot].frames[FrameID(UInt32(id))].content else { continue }
      var whole = bytes.mutableSpan
      var part = whole._mutatingExtracting((id << 12)..<((id + 1) << 12))
      memory.read(contents[content].frame, at: 0, into: &part)
    }
    func word(_ slot: TaskSlot, _ offset: Int) -> UInt64 {
      let start = Int(slot.rawValue) * PolicyState.entryBytes + offset
      return (0..<8).reversed().reduce(0) { $0 << 8 | UInt64(bytes[start + $1]) }
    }
    var proposals: [PolicyProposal] = []
    var claimed = ledger.claimed
    var isTooMuch = false
    let entries = containers[buffer.slot].frames.count * PolicyState.entriesPerFrame
    tasks.forEachIndex { slot in
      // Those that end keep what they have until they are gone.
      guard !tasks[slot].isEnding, !tasks[slot].isDropped else { return }
      guard Int(slot.rawValue) < entries else {
        // It has not begun, and waits for its entry: what its launch asked for is its contract.
        let entitlement = tasks[slot].entitlement
        return proposals.append(
          PolicyProposal(
            slot: slot, guaranteed: entitlement.guaranteed, mayUseExtra: entitlement.mayUseExtra, swapQuota: 0))
      }
      let guaranteed = word(slot, 32)
      guard guaranteed <= UInt64(ledger.allocatable) else { return isTooMuch = true }
      claimed += Int(guaranteed) - tasks[slot].entitlement.claim
      proposals.append(
        PolicyProposal(
          slot: slot, guaranteed: Int(guaranteed), mayUseExtra: word(slot, 40) != 0,
          swapQuota: Int(clamping: word(slot, 48))))
    }
    guard !isTooMuch, claimed <= ledger.allocatable else { throw .noMemory }
    return proposals
  }

  private mutating func correctEntries() {
    guard let buffer = policy.buffer else { return }
    for entry in 0..<UInt32(containers[buffer.slot].frames.count * PolicyState.entriesPerFrame) {
      let slot = TaskSlot(entry)
      if tasks.contains(slot) { writeServerFields(slot) } else { clearPolicyEntry(slot) }
    }
  }

  /// Who waits for frames that it has no claim to any more makes its call again, and is told so; all others look whom
  /// to ask.
  private mutating func reviewRequests() {
    let waiting = reclaim.requests
    reclaim.requests = []
    for request in waiting {
      let entitlement = tasks[request.task].entitlement
      let isGood = request.isWithdrawal ? entitlement.extra == 0 : request.count <= entitlement.guaranteedLeft
      if isGood { reclaim.requests.append(request) } else if request.isWithdrawal { ledger.promise(-request.count) }
      events.wake(request.task)
    }
    serveRequests()
  }

  // MARK: News

  /// A task has come or gone: the holder of the buffer is told, now or when it receives next.
  mutating func tellOfTasks() {
    guard let holder = policy.holder else { return }
    policy.hasNews = true
    for level in WaitLevel.allCases {
      let waiter = Waiter(holder, level)
      guard case .receiving(let endpoint, _) = wait(waiter) else { continue }
      endpoints[endpoint.slot].receivers.removeAll { $0 == level }
      policy.hasNews = false
      return finish(waiter, .again)
    }
  }

  /// Whether the task is to hear of tasks now; it is not told twice.
  mutating func takeNews(_ task: TaskSlot) -> Bool {
    guard policy.hasNews, policy.holder == task else { return false }
    policy.hasNews = false
    return true
  }

  // MARK: Launches

  /// The task has all it begins with. If somebody decides, it waits for what is decided about it.
  mutating func presentToPolicy(_ task: TaskSlot) {
    if policy.holder != nil { tasks[task].policyDeadline = events.now + Self.launchPatience }
    tellOfTasks()
  }

  /// Until when the new task is to wait, unless it is woken before; nil: it may begin.
  func policyWait(_ task: TaskSlot) -> UInt64? {
    let deadline = tasks[task].policyDeadline
    return events.now < deadline ? deadline : nil
  }

  /// Nobody waits for the policy server any more: it has committed, or is gone.
  mutating func releaseLaunches() {
    var next = tasks.occupied(from: TaskSlot(0))
    while let slot = next {
      if tasks[slot].policyDeadline != 0 {
        tasks[slot].policyDeadline = 0
        events.wake(slot)
      }
      next = tasks.occupied(after: slot)
    }
  }

  // MARK: Names

  /// A task's name, with zeros up to PM_NAME_MAXIMUM + 1 bytes.
  func taskName(_ task: TaskSlot, _ handle: Handle, _ id: UInt64) throws(CallFailure) -> [UInt8] {
    try checkControl(task, handle)
    var found: TaskSlot?
    tasks.forEachIndex { if tasks[$0].id.rawValue == id { found = $0 } }
    guard let found else { throw .noEntry }
    let name = tasks[found].name
    return name + [UInt8](repeating: 0, count: Int(PM_NAME_MAXIMUM) + 1 - name.count)
  }
}

extension ServerState {
  /// For checkInvariants: handles that name control against the counts, and the buffer against both.
  func checkPolicy(_ found: inout [String]) {
    var controls = 0
    var lastSlot = TaskSlot(0)
    tasks.forEachIndex { slot in
      if tasks[slot].hasSpace { lastSlot = slot }
      guard !tasks[slot].isEnding else { return }
      var own = 0
      tasks[slot].handles.forEach { if $0 == .control { own += 1 } }
      controls += own
      if own != tasks[slot].controls {
        found.append("task slot \(slot.rawValue) has \(own) handles of control, not as counted")
      }
    }
    if controls != policy.controls { found.append("\(controls) handles name control, \(policy.controls) are counted") }
    if let holder = policy.holder, !tasks.contains(holder) || tasks[holder].controls == 0 {
      found.append("the policy buffer's holder has no control")
    }
    guard let buffer = policy.buffer else { return }
    if controls == 0 { found.append("there is a policy buffer, and nobody has control") }
    if Int(lastSlot.rawValue) >= containers[buffer.slot].frames.count * PolicyState.entriesPerFrame {
      found.append("task slot \(lastSlot.rawValue) is beyond the policy buffer")
    }
  }
}
