// What must always hold of released frames and of demands for frames. See Invariants.swift.

extension ServerState {
  /// Soft references against the ids that name them.
  func countReleased(_ census: inout ContainerCensus, _ found: inout [String]) {
    var next = softReferences.oldest
    while let number = next {
      next = softReferences.after(number)
      let reference = softReferences[number]
      let isThere = containers.contains(reference.container)
      if !isThere || containers[reference.container].frames[reference.id].softReference != number {
        found.append("id \(reference.id) of container slot \(reference.container) does not name its soft reference")
      }
      guard let content = reference.contentNumber else { continue }
      if census.sharers[Int(content.rawValue)] == 0 { census.contents += 1 }
      census.sharers[Int(content.rawValue)] += 1
    }
    var released = 0
    containers.forEachIndex { released += containers[$0].frames.releasedCount }
    if released != softReferences.count {
      found.append("\(released) ids are released, there are \(softReferences.count) soft references")
    }
  }

  /// Demands against what tasks have, and nobody waiting for what is there.
  func checkDemands(_ found: inout [String]) {
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
    for slot in reclaim.requests.map(\.task) where reclaim.requests.count(where: { $0.task == slot }) > 1 {
      found.append("task slot \(slot.rawValue) waits twice")
    }
    for request in reclaim.requests
    where !tasks.contains(request.task.rawValue) || tasks[request.task.rawValue].isEnding {
      found.append("task slot \(request.task.rawValue) is not there, and waits for \(request.count) frames")
    }
    if let first = reclaim.requests.first, first.count <= ledger.free {
      found.append("a request waits for free frames")
    }
  }
}
