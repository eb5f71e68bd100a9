// A task that must end stops a call between two steps. How much of the call was done then is not predictable, so the
// walk ends there. The state must be valid after the end of that task and of all others, and nothing may be left.

internal import GuestMemory
internal import PhysicalMemory

extension Walk {
  /// Small, so that calls on a few frames take several steps.
  private static let workOfAStep = 16

  func performStopping(_ call: Call, _ task: ModelTask, _ label: Int) throws {
    // The walk cannot end within another task's start or end.
    guard depth == 0 else { return }
    server.limitSteps(to: Self.workOfAStep)
    defer { server.limitSteps(to: nil) }
    try perform(call, task, label)
  }

  /// Ends the walk after a stopped call.
  func endAfterStop() throws {
    guard case .task(let name, let call) = done.last?.action, let task = model.task(name) else { return }
    // The container's end revokes the capabilities that the call had to revoke.
    if case .revoke = call {} else { try checkServer("a call was stopped") }
    endAnyhow(task)
    try checkServer("its task has ended")
    for other in model.tasks where other !== task {
      endAnyhow(other)
      try checkServer("task \(other.name.label) has ended")
    }
    for image in images.values {
      if let error = attempt(unload: image) { throw fail("after a stopped call, an image is left: \(error)") }
    }
    while server.watchGracePeriods() {}
    try checkServer("every task has ended")
    let statistics = server.statistics
    let left = [
      statistics.tasks, statistics.containers, statistics.contents, statistics.allocatedFrames,
      statistics.claimedFrames, statistics.releasedFrames, server.waitingFrames, machine.leafCount,
    ]
    guard left.allSatisfy({ $0 == 0 }) else { throw fail("after a stopped call, something is left: \(left)") }
  }

  private func endAnyhow(_ task: ModelTask) {
    var waits = 0
    server.endTask(task.slot) { until in
      waits += 1
      precondition(waits < 1000, "an end never completes")
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
      throw fail("after a stopped call, when \(when): \(violation)")
    }
  }
}
