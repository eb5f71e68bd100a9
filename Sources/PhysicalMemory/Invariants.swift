// What must always hold, checked from both ends by walking everything. For tests and the simulation, after every step.

internal import CGuestABI
internal import GuestMemory

extension ServerState {
  /// A sentence for each violation.
  mutating func violations() -> [String] {
    var found = pool.checkInvariants()
    found += contentViolations()
    found += leafViolations()
    found += accountingViolations()
    found += policyViolations()
    return found
  }

  /// Sharers of contents against the ids that name them; owners of frames against contents.
  private func contentViolations() -> [String] {
    var found: [String] = []
    var sharers: [UInt32: UInt32] = [:]
    containers.forEachIndex { slot in
      var next = containers[slot].frames.firstUsed(from: 0)
      while let id = next {
        if let number = containers[slot].frames[id].content { sharers[number.rawValue, default: 0] += 1 }
        next = id == .max ? nil : containers[slot].frames.firstUsed(from: id + 1)
      }
    }
    if sharers.count != contents.count {
      found.append("\(contents.count) contents exist, and \(sharers.count) are named by a virtual frame")
    }
    for (number, count) in sharers {
      let content = contents[ContentNumber(number)]
      if content.sharers != count {
        found.append("content \(number) counts \(content.sharers) sharers, and \(count) virtual frames name it")
      }
      let record = pool.records[content.frame]
      if record.state != .inUse || record.owner != number {
        found.append("content \(number) has frame \(content.frame.rawValue), which is not its own")
      }
    }
    return found
  }

  /// Every leaf against the mapping behind it and the reverse map, and the other way round.
  private mutating func leafViolations() -> [String] {
    var found: [String] = []
    var leaves = 0
    var slots: [UInt32] = []
    tasks.forEachIndex { slots.append($0) }
    let end = PageNumber(containing: PM_USER_END)
    for slot in slots {
      let task = TaskSlot(slot)
      var page = PageNumber(0)
      while let mapped = operations.firstMapped(task, from: page, to: end) {
        page = mapped
        // The search may stop where there is no leaf, to be gone on with.
        guard operations.mappedPage(task, mapped) != nil else { continue }
        leaves += 1
        page = mapped.advanced(by: 1)
        if let violation = leafViolation(task, mapped) { found.append("task slot \(slot): \(violation)") }
      }
    }
    var places = 0
    for frame in 0..<UInt32(pool.count) {
      let record = pool.records[FrameNumber(frame)]
      if record.state == .inUse { places += record.link == 0 ? 0 : reverseMap.count(record.link) }
    }
    if places != leaves { found.append("the reverse map knows \(places) leaves, the page tables have \(leaves)") }
    return found
  }

  private mutating func leafViolation(_ task: TaskSlot, _ page: PageNumber) -> String? {
    guard let leaf = operations.mappedPage(task, page) else { return "a leaf vanished" }
    let at = "page \(String(page.rawValue, radix: 16))"
    guard let index = tasks[task.rawValue].mappings.find(page) else { return "\(at) has a leaf and no mapping" }
    let mapping = tasks[task.rawValue].mappings[index]
    guard containers.contains(mapping.container.slot),
      containers.generation(at: mapping.container.slot) == mapping.container.generation
    else { return "\(at) shows a container that is gone" }
    guard let number = containers[mapping.container.slot].frames[mapping.frame(at: page)].content else {
      return "\(at) shows a virtual frame without content"
    }
    if contents[number].frame != leaf.frame { return "\(at) shows frame \(leaf.frame.rawValue), not the content's" }
    if !leaf.rights.isSubset(of: mapping.flags.effectiveRights) { return "\(at) permits more than was asked for" }
    if leaf.rights.contains(.write), contents[number].sharers > 1 { return "\(at) may write a shared content" }
    var isKnown = false
    reverseMap.forEach(in: pool.records[leaf.frame].link) { place in
      if place == MappedPlace(task, page) { isKnown = true }
    }
    return isKnown ? nil : "\(at) is not in the reverse map"
  }

  /// Charges against the containers, claims against the ledger, frames against the pool.
  private func accountingViolations() -> [String] {
    var found: [String] = []
    var allocated: [TaskSlot: Int] = [:]
    containers.forEachIndex { slot in
      allocated[containers[slot].owner, default: 0] += containers[slot].frames.count + containers[slot].promised
    }
    var claimed = 0
    var total = 0
    tasks.forEachIndex { slot in
      let entitlement = tasks[slot].entitlement
      claimed += entitlement.claim
      let owned = (allocated[TaskSlot(slot)] ?? 0) + tasks[slot].setAside
      total += entitlement.allocated
      if entitlement.allocated != owned {
        found.append("task slot \(slot) is charged \(entitlement.allocated) frames, its containers have \(owned)")
      }
    }
    if claimed != ledger.claimed {
      found.append("the ledger has \(ledger.claimed) claimed, the tasks claim \(claimed)")
    }
    if claimed > ledger.allocatable { found.append("more is claimed than can be had") }
    if total != ledger.allocated {
      found.append("the ledger has \(ledger.allocated) allocated, the tasks have \(total)")
    }
    if total > ledger.allocatable { found.append("more is allocated than can be had") }
    found += reclaimViolations()
    var inUse = 0
    var tableCount = 0
    var reserved = 0
    for frame in 0..<UInt32(pool.count) {
      switch pool.records[FrameNumber(frame)].state {
      case .inUse: inUse += 1
      case .table: tableCount += 1
      case .reserved: reserved += 1
      default: break
      }
    }
    var withdrawn = tables.reserved + machineFrames + (allocated[.server] ?? 0)
    var taken = 0
    tasks.forEachIndex { slot in
      withdrawn += tasks[slot].extraTables
      taken += tasks[slot].reservedTables
    }
    if taken != tables.taken { found.append("\(taken) tables are from the reserve, \(tables.taken) are counted") }
    let allocatable = max(0, pool.count - reserved - withdrawn)
    if ledger.allocatable != allocatable {
      found.append("\(allocatable) frames can be had, the ledger says \(ledger.allocatable)")
    }
    if inUse != contents.count { found.append("\(inUse) frames are in use, \(contents.count) contents have one") }
    if tableCount != tables.used { found.append("\(tableCount) frames are tables, \(tables.used) are counted") }
    if !revocations.zaps.isEmpty || !revocations.unused.isEmpty { found.append("a revocation was left unfinished") }
    return found
  }

  /// Handles that name control against the counts, and the buffer against both.
  private func policyViolations() -> [String] {
    var found: [String] = []
    var controls = 0
    var lastSlot: UInt32 = 0
    tasks.forEachIndex { slot in
      lastSlot = slot
      guard !tasks[slot].isEnding else { return }
      var own = 0
      tasks[slot].handles.forEach { if $0 == .control { own += 1 } }
      controls += own
      if own != tasks[slot].controls { found.append("task slot \(slot) has \(own) handles of control, not as counted") }
    }
    if controls != policy.controls { found.append("\(controls) handles name control, \(policy.controls) are counted") }
    if let holder = policy.holder, !tasks.contains(holder.rawValue) || tasks[holder.rawValue].controls == 0 {
      found.append("the policy buffer's holder has no control")
    }
    guard let buffer = policy.buffer else { return found }
    if controls == 0 { found.append("there is a policy buffer, and nobody has control") }
    if Int(lastSlot) >= containers[buffer.slot].frames.count * PolicyState.entriesPerFrame {
      found.append("task slot \(lastSlot) is beyond the policy buffer")
    }
    return found
  }

  /// Demands against what tasks have, and nobody waiting for what is there.
  private func reclaimViolations() -> [String] {
    var found: [String] = []
    var demanded = 0
    tasks.forEachIndex { slot in
      let asked = tasks[slot].demanded
      demanded += asked
      if asked > tasks[slot].entitlement.extra, !tasks[slot].isDropped, !tasks[slot].isEnding {
        found.append("task slot \(slot) is asked for \(asked) frames and has \(tasks[slot].entitlement.extra) extra")
      }
      if (asked > 0) != reclaim.victims.contains(TaskSlot(slot)) {
        found.append("task slot \(slot) and the list of victims disagree")
      }
      if tasks[slot].untold > asked { found.append("task slot \(slot) is to be told more than is asked") }
    }
    if demanded != reclaim.demanded { found.append("\(demanded) frames are asked for, \(reclaim.demanded) counted") }
    if let first = reclaim.requests.first, first.count <= ledger.free {
      found.append("a request waits for free frames")
    }
    return found
  }
}
