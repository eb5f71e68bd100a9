// Tasks that start and end in a walk. Either may have to wait for others; operations continue meanwhile.

internal import GuestMemory
internal import PhysicalMemory

extension Walk {
  func work(_ task: ModelTask, _ microseconds: UInt64) {
    task.processorTime += microseconds * 1000
    machine.setProcessorTime(task.slot, task.processorTime)
  }

  func start(_ name: TaskName, _ label: Int, _ parameters: TaskParameters, _ around: Around) throws {
    guard let image = images[label] else { return }
    // Within another task's start or end no task could return frames, so this start must not need any.
    guard depth == 0 || model.policy.holder == nil && model.canBeginAtOnce(image: label) else { return }
    var task: ModelTask?
    var expected = attempt { () throws(CallFailure) in
      task = try model.create(name, image: label, parameters, around: around)
    }
    var deadline: UInt64?
    if let task {
      machine.setProcessorTime(task.slot, 0)
      (expected, deadline) = begin(task)
    }
    depth += 1
    var started: (slot: TaskSlot, id: TaskID)?
    let error = attempt { () throws(CallFailure) in
      started = try server.createTask(image, parameters) { slot, until in
        guard let task, found == nil else { return giveUp(until) }
        do {
          guard deadline == until else { throw fail("a start waits until \(until), not \(deadline as Any)") }
          try checkAll()
          try pass(task, until)
          try checkAll()
        } catch {
          found = error as? Disagreement ?? fail("\(error)")
          return giveUp(until)
        }
        (expected, deadline) = begin(task)
      }
    }
    depth -= 1
    if let found { throw found }
    if error != nil { task?.isEnding = true }
    task?.isStarting = false
    try same(error, expected)
    guard started?.slot == (error == nil ? task?.slot : nil), started?.id == (error == nil ? task?.id : nil) else {
      throw fail("the task is \(String(describing: started)), not \(String(describing: task?.slot))")
    }
  }

  /// Starts a task in the model.
  /// - Returns: the outcome, or the time it waits until.
  private func begin(_ task: ModelTask) -> (CallFailure?, UInt64?) {
    while true {
      if task.hasFrames { return (nil, isPolicyAwaited(task) ? task.policyDeadline : nil) }
      if let deadline = model.frameWait(task) { return (nil, deadline) }
      let error = attempt { () throws(CallFailure) in try model.begin(task) }
      guard error == .waitForFrames else {
        if error != nil { return (error, nil) }
        model.endRequest(task)
        continue
      }
    }
  }

  private func isPolicyAwaited(_ task: ModelTask) -> Bool { model.now < task.policyDeadline }

  /// A failure is reported after the start, so all others give up their frames to let it finish.
  private func giveUp(_ until: UInt64) {
    for other in model.tasks where !other.isEnding && !other.isStarting {
      other.isEnding = true
      endAllTransfers()
      server.endTask(other.slot) { self.machine.advance(to: $0) }
    }
    waits += 1
    precondition(waits < 1000, "a start never completes: \(found?.text ?? "")")
    machine.advance(to: until)
  }

  /// Performs some operations while a task waits for its first frames or for a decision about it. Then lets CPU time
  /// pass, and ends the tasks that were dropped.
  private func pass(_ task: ModelTask, _ until: UInt64) throws {
    var left = 20
    while left > 0, model.isWaitingForFrames(task) || isPolicyAwaited(task), depth < 3,
      let operation = source.next(model)
    {
      left -= 1
      try step(operation)
    }
    guard model.isWaitingForFrames(task) || isPolicyAwaited(task) else { return }
    for other in model.tasks where !other.isEnding {
      if other.isDropped { try end(other, pause: 0) } else { work(other, 5000) }
    }
    machine.advance(to: until)
    model.now = machine.now
  }

  /// Ends a task. While others hold its containers, operations continue.
  func end(_ task: ModelTask, pause: Int) throws {
    model.beginEnd(task)
    var left = pause
    var expected = model.continueEnd(task)
    depth += 1
    server.endTask(task.slot) { deadline in
      var isWoken = false
      if found == nil {
        do {
          guard expected == deadline else {
            throw fail("the end waits until \(deadline), not until \(expected.map(String.init) ?? "now")")
          }
          try checkAll()
          while left > 0, !isWoken, depth < 3, let operation = source.next(model) {
            left -= 1
            try step(operation)
            isWoken = lastWoken.contains(task.name)
          }
        } catch {
          found = error as? Disagreement ?? fail("\(error)")
        }
      }
      // No other code ends them from now on.
      endAllTransfers()
      if !isWoken { machine.advance(to: deadline) }
      model.now = machine.now
      expected = model.continueEnd(task)
    }
    depth -= 1
    if let found { throw found }
    if let expected { throw fail("the task has ended before \(expected)") }
  }
}
