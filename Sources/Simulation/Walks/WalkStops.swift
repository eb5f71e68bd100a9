// A task that is to end gives up a call between two steps. How much of it was done by then is not foretold, so that the walk
// ends there: all must be in order for the end of that task, then for those of all others, and nothing may be left.

internal import GuestMemory
internal import PhysicalMemory

extension Walk {
  /// So short that calls of a few frames take several steps.
  private static let workOfAStep = 16

  func performStopping(_ call: Call, _ task: ModelTask, _ label: Int) throws {
    // The walk cannot end in the middle of another task's beginning or end.
    guard depth == 0 else { return }
    server.limitSteps(to: Self.workOfAStep)
    defer { server.limitSteps(to: nil) }
    try perform(call, task, label)
  }

  /// A call was given up.
  func endAfterStop() throws {
    guard case .task(let name, let call) = done.last?.action, let task = model.task(name) else { return }
    // Capabilities that were to be revoked go with the container.
    if case .revoke = call {} else { try checkServer("a call was given up") }
    endAnyhow(task)
    try checkServer("its task has ended")
    for other in model.tasks where other !== task {
      endAnyhow(other)
      try checkServer("task \(other.name.label) has ended")
    }
    for image in images.values {
      if let error = attempt(unload: image) { throw fail("after a call was given up, an image stays: \(error)") }
    }
    while server.watchGracePeriods() {}
    try checkServer("all is gone")
    let statistics = server.statistics
    let left = [
      statistics.tasks, statistics.containers, statistics.contents, statistics.allocatedFrames,
      statistics.claimedFrames, statistics.releasedFrames, server.waitingFrames, machine.leafCount,
    ]
    guard left.allSatisfy({ $0 == 0 }) else { throw fail("after a call was given up, something is left: \(left)") }
  }

  private func endAnyhow(_ task: ModelTask) {
    var waits = 0
    server.endTask(task.slot) { until in
      waits += 1
      precondition(waits < 1000, "an end waits for ever")
      for transfer in transfers { server.endTransfer(transfer.runs) }
      transfers = []
      machine.advance(to: until)
    }
  }

  private func attempt(unload image: ImageNumber) -> CallFailure? {
    do throws(CallFailure) {
      try server.unloadImage(image)
      return nil
    } catch {
      return error
    }
  }

  private func checkServer(_ when: String) throws {
    if let violation = (server.checkInvariants() + machine.violations).first {
      throw fail("after a call was given up, when \(when): \(violation)")
    }
  }
}
