// The invariants of released frames and of demands for frames. See Invariants.swift.

extension ServerState {
  /// Checks soft references against the ids that name them, and the list of released contents against their sharers.
  func countReleased(_ census: inout ContainerCensus, _ found: inout [String]) {
    var released = 0
    for number in Int(ContentTable.firstNumber)..<contents.numberLimit {
      let content = contents[ContentNumber(UInt32(number))]
      guard content.sharers > 0, content.firstReference != nil else { continue }
      var count = 0
      softReferences.forEach(of: content) { reference in
        count += 1
        if !isNamed(reference, by: number) { found.append("a soft reference to content \(number) is inconsistent") }
      }
      released += count
      if count != softReferences.count(of: content) {
        found.append("content \(number) counts \(softReferences.count(of: content)) soft references, and has \(count)")
      }
      if census.sharers[number] == 0 { census.contents += 1 }
      census.sharers[number] += UInt32(count)
    }
    checkReleasedContents(&found)
    var ids = 0
    containers.forEachIndex { ids += containers[$0].frames.releasedCount - containers[$0].frames.releasedEmptyCount }
    if ids != softReferences.count || released != softReferences.count {
      found.append("\(ids) ids are released, contents have \(released) soft references of \(softReferences.count)")
    }
  }

  private func isNamed(_ number: SoftReferenceNumber, by content: Int) -> Bool {
    let reference = softReferences[number]
    return Int(reference.contentNumber.rawValue) == content && containers.contains(reference.container)
      && containers[reference.container].frames[reference.id].softReference == number
  }

  private func checkReleasedContents(_ found: inout [String]) {
    var listed = 0
    var next = softReferences.oldest
    while let number = next, listed <= contents.count {
      listed += 1
      next = softReferences.younger(than: contents[number])
      if Int(contents[number].sharers) != softReferences.count(of: contents[number]) {
        found.append("content \(number.rawValue) is on the list of released contents and has another sharer")
      }
    }
    var released = 0
    for number in Int(ContentTable.firstNumber)..<contents.numberLimit {
      let content = contents[ContentNumber(UInt32(number))]
      if content.sharers > 0, Int(content.sharers) == softReferences.count(of: content) { released += 1 }
    }
    if listed != released { found.append("\(released) contents are released, and \(listed) are on the list") }
  }

  /// Checks demands against extra frames, and that no request waits for free frames.
  func checkDemands(_ found: inout [String]) {
    var demanded = 0
    tasks.forEachIndex { slot in
      let asked = tasks[slot].demanded
      demanded += asked
      if asked > tasks[slot].entitlement.extra, !tasks[slot].isDropped, !tasks[slot].isEnding {
        found.append(
          "task slot \(slot.rawValue) is asked for \(asked) frames and has \(tasks[slot].entitlement.extra) extra")
      }
      if (asked > 0) != reclaim.victims.contains(slot) {
        found.append("task slot \(slot.rawValue) and the list of victims disagree")
      }
      if tasks[slot].untold > asked { found.append("task slot \(slot.rawValue) has more untold than demanded frames") }
    }
    if demanded != reclaim.demanded { found.append("\(demanded) frames are asked for, \(reclaim.demanded) counted") }
    for slot in reclaim.requests.map(\.task) where reclaim.requests.count(where: { $0.task == slot }) > 1 {
      found.append("task slot \(slot.rawValue) waits twice")
    }
    for request in reclaim.requests
    where !tasks.contains(request.task) || tasks[request.task].isEnding {
      found.append("task slot \(request.task.rawValue) does not exist, and waits for \(request.count) frames")
    }
    if let first = reclaim.requests.first, first.count <= ledger.free {
      found.append("a request waits for free frames")
    }
  }
}
