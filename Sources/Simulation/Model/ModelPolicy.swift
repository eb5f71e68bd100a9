// The naive model of policy: control, the policy buffer, commits. The buffer is a container of one page whose bytes are
// the model's own; there are never more tasks than it has entries.

internal import CGuestABI
internal import GuestMemory
internal import PhysicalMemory

/// The state of policy.
struct ModelPolicy {
  var wasTaken = false
  /// Set by the first commit. Every task has a contract afterwards.
  var isControlled = false
  var buffer: ModelContainer?
  /// The task that mapped the buffer last.
  var holder: TaskName?
  /// Tasks have started or ended, and the holder has not been told.
  var hasNews = false
  var commitCount = 0
  var refusedCount = 0

  static let entryBytes = 64
  static let entries = 64

  var content: ModelContent? {
    if case .content(let content) = buffer?.frames[0] { content } else { nil }
  }

  func word(_ slot: TaskSlot, _ index: Int) -> UInt64 {
    content.map { longWord($0.bytes, Int(slot.rawValue) * Self.entryBytes + 8 * index) } ?? 0
  }

  func set(_ slot: TaskSlot, _ index: Int, _ words: [UInt64]) {
    let start = Int(slot.rawValue) * Self.entryBytes + 8 * index
    content?.bytes.replaceSubrange(start..<start + 8 * words.count, with: words.flatMap(littleEndian))
  }

  func clear(_ slot: TaskSlot) { set(slot, 0, [UInt64](repeating: 0, count: 8)) }
}

extension Model {
  // MARK: Control

  mutating func getControl(_ task: ModelTask, _ name: HandleName, result: UInt64) throws(CallFailure) {
    try check(task, result, 4, .write)
    guard !policy.wasTaken else { throw .notPermitted }
    policy.wasTaken = true
    try writeWord(task, result, task.handles.insert(.control, name))
  }

  func checkControl(_ task: ModelTask, _ handle: UInt32) throws(CallFailure) {
    switch task.handles[handle] {
    case nil: throw .invalid
    case .control: return
    default: throw .notPermitted
    }
  }

  /// A task has lost a handle of control.
  mutating func loseControl() {
    if let holder = policy.holder, task(holder)?.hasControl != true {
      policy.buffer?.epoch += 1
      policy.holder = nil
      releaseLaunches()
    }
    if let buffer = policy.buffer, !tasks.contains(where: \.hasControl) {
      policy.buffer = nil
      empty(buffer)
      serveRequests()
    }
  }

  // MARK: The buffer

  mutating func getPolicyBuffer(
    _ task: ModelTask, _ handle: UInt32, at address: UInt64, result: UInt64
  ) throws(CallFailure) {
    try checkControl(task, handle)
    try check(task, result, 4, .write)
    try Self.pages(address, 1)
    let buffer = try makeBuffer(for: task)
    let page = PageNumber(containing: address)
    try makeTables(task, page)
    try writeWord(task, result, UInt32(ModelPolicy.entries))
    buffer.epoch += 1
    show(task, buffer, 0, 1, at: page, [.read, .write, .lazy], epoch: buffer.epoch, isInitial: true)
    policy.holder = task.name
  }

  private mutating func makeBuffer(for task: ModelTask) throws(CallFailure) -> ModelContainer {
    if let buffer = policy.buffer { return buffer }
    guard withdraw(task) else { throw lack(task, 1) }
    let buffer = ModelContainer(owner: nil)
    policy.buffer = buffer
    set(buffer, 0, .content(makeContent(ModelContent.zeros)))
    for task in tasks { fillEntry(task, guaranteed: 0, extra: true) }
    return buffer
  }

  func fillEntry(_ task: ModelTask, guaranteed: Int, extra: Bool) {
    setServerFields(task)
    policy.set(task.slot, 4, [UInt64(guaranteed), extra ? 1 : 0, 0, 0])
  }

  private func setServerFields(_ task: ModelTask) {
    task.noted = UInt64(allocated(task))
    policy.set(task.slot, 0, [task.id.rawValue, task.noted, UInt64(task.guaranteed), 0])
  }

  /// Records the `allocated` fields that the server shows. Where the holder has overwritten one, its own value may
  /// still be there.
  /// - Parameter shown: the server's field for a slot; nil: the buffer cannot be read.
  /// - Returns: a message if a field is wrong.
  func noteAllocated(_ shown: ((TaskSlot) -> UInt64)?) -> String? {
    for task in tasks {
      let truth = UInt64(allocated(task))
      let written = policy.word(task.slot, 1)
      let field = shown?(task.slot) ?? truth
      if field == truth {
        task.noted = truth
      } else if written == task.noted || field != written {
        return "the policy buffer says that task \(task.name.label) has \(field) frames, not \(truth)"
      }
      policy.set(task.slot, 1, [field])
    }
    return nil
  }

  // MARK: Commits

  mutating func commitPolicy(_ task: ModelTask, _ handle: UInt32) throws(CallFailure) {
    try checkControl(task, handle)
    guard policy.buffer != nil else { throw .noEntry }
    let meant = tasks.filter { !$0.isEnding && !$0.isDropped }
    var sum = tasks.reduce(0) { $0 + ($1.isEnding || $1.isDropped ? claim($1) : 0) }
    for task in meant {
      let guaranteed = policy.word(task.slot, 4)
      sum += guaranteed > UInt64(allocatable) ? allocatable + 1 : Int(guaranteed)
    }
    guard sum <= allocatable else {
      policy.refusedCount += 1
      throw .noMemory
    }
    for task in meant {
      task.guaranteed = Int(policy.word(task.slot, 4))
      task.mayUseExtra = policy.word(task.slot, 5) != 0
      task.hasContract = true
    }
    // Demands shrink to what is extra now.
    for task in meant { meetDemands(task, max(0, task.demanded - extra(task))) }
    policy.isControlled = true
    policy.commitCount += 1
    for slot in 0..<UInt32(ModelPolicy.entries) where self.task(TaskSlot(slot)) == nil { policy.clear(TaskSlot(slot)) }
    for task in tasks { setServerFields(task) }
    releaseLaunches()
    // Requests without a claim any more are woken and fail.
    for request in reclaim.requests { woken.append(request.task) }
    let good = reclaim.requests.filter { request in
      self.task(request.task).map {
        request.isWithdrawal ? extra($0) == 0 : request.count <= $0.guaranteed - allocated($0)
      } ?? false
    }
    reclaim.requests = good
    serveRequests()
  }

  // MARK: News and launches

  mutating func tellOfTasks() {
    guard let holder = policy.holder, let task = task(holder) else { return }
    policy.hasNews = true
    guard case .receiving = task.wait else { return }
    policy.hasNews = false
    finish(task, .again)
  }

  mutating func takeNews(_ task: ModelTask) -> Bool {
    guard policy.hasNews, policy.holder == task.name else { return false }
    policy.hasNews = false
    return true
  }

  /// A task has its first frames. It waits up to 50 ms for a decision about it, if a task holds control.
  mutating func present(_ task: ModelTask) {
    task.policyDeadline = policy.holder == nil ? 0 : now + 50_000_000
    tellOfTasks()
  }

  private mutating func releaseLaunches() {
    for task in tasks where task.policyDeadline != 0 {
      task.policyDeadline = 0
      woken.append(task.name)
    }
  }
}
