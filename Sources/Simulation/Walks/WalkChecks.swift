// The checks after each step of a walk.

internal import GuestMemory
internal import PhysicalMemory

extension Walk {
  func forgetWishes() {
    model.woken.removeAll(keepingCapacity: true)
    model.asked.removeAll(keepingCapacity: true)
    model.dropped.removeAll(keepingCapacity: true)
  }

  func checkAll() throws {
    try absorb()
    let violations = server.checkInvariants()
    guard violations.isEmpty else { throw fail("invariant: \(violations[0])") }
    try checkAccounts()
    try checkPolicyBuffer()
    try checkSuperpages()
    // Some tasks are woken for two reasons.
    for name in Set(model.woken) {
      guard let task = model.task(name) else { continue }
      if !machine.wasWoken(task.slot) { throw fail("task \(name.label) was not woken") }
    }
    let (asked, dropped) = machine.takeAsked()
    if asked != model.asked { throw fail("slots \(asked) were asked for frames, not \(model.asked)") }
    if Set(dropped) != Set(model.dropped) { throw fail("slots \(dropped) were dropped, not \(model.dropped)") }
    lastWoken = model.woken
    forgetWishes()
    guard machine.violations.isEmpty else { throw fail("machine: \(machine.violations[0])") }
  }

  private func checkAccounts() throws {
    let statistics = server.statistics
    let claimed = model.claimed
    let allocatable = model.allocatable
    let allAllocated = model.allocated
    let isLent = model.lendable > 0
    var containers = model.images.count + (model.policy.buffer == nil ? 0 : 1)
    for task in model.tasks {
      containers += task.containers.count
      let allocated = model.allocated(task)
      let headroom = model.available(task, extra: true)
      let information = server.taskInformation(task.slot)
      guard
        information.id == task.id, information.guaranteed == task.guaranteed, information.allocated == allocated,
        information.available == headroom, information.swapped == 0,
        information.pressure == (isLent ? 100 * allAllocated / allocatable : 100)
      else {
        throw fail(
          "task \(task.name.label) has \(information), not \(task.guaranteed) guaranteed, \(allocated) allocated, "
            + "\(headroom) available")
      }
    }
    try same(statistics.claimedFrames, claimed, "claimed frames")
    try same(statistics.allocatableFrames, allocatable, "allocatable frames")
    try same(statistics.allocatedFrames, allAllocated, "allocated frames")
    try same(statistics.freeFrames, model.free, "free frames")
    try same(statistics.releasedFrames, model.released.count, "released frames")
    try same(Int(statistics.framesExpired), Int(model.expiredCount), "expired frames")
    try same(Int(statistics.upcalls), Int(model.reclaim.demandCount), "demands")
    try same(Int(statistics.tasksDropped), Int(model.reclaim.dropCount), "dropped tasks")
    try same(Int(statistics.policyCommits), model.policy.commitCount, "commits")
    try same(statistics.contents, model.contentCount, "contents")
    try same(statistics.containers, containers, "containers")
    try same(statistics.tasks, model.tasks.count, "tasks")
    try same(statistics.tableFrames, model.tables.used, "tables")
    try same(Int(statistics.copiesOnWrite), Int(model.copiesOnWrite), "copies on write")
    try same(Int(statistics.placements), model.placement.placed, "placements")
    try same(Int(statistics.placementsRefused), model.placement.refused, "refused placements")
  }

  @inline(__always)
  func same(_ server: Int, _ model: Int, _ what: String) throws {
    if server != model { throw fail("\(what): the server has \(server), the model \(model)") }
  }

  /// Checks the leaves that were written, and learns the frames of their contents. No frame may have two contents.
  func absorb() throws {
    machine.takeWritten(into: &written)
    for place in written {
      guard let leaf = machine.leaf(place.slot, place.page), let task = model.task(place.slot) else { continue }
      if let wrong = model.see(task, place.page, leaf) { throw fail("\(place): \(wrong)") }
      guard let mapping = task.mappings[place.page.rawValue],
        case .content(let content) = mapping.container.frames[mapping.id]
      else { continue }
      let frame = Int(leaf.frame.rawValue)
      if let other = owners[frame], other !== content, other.sharers > 0 {
        throw fail("\(place): frame \(frame) shows two contents")
      }
      owners[frame] = content
    }
  }
}
