// Chooses the actions of the holder of control. The buffer is mapped apart from everything else, because its counts of
// allocated frames are compared after each step and not in the middle of a call.

internal import CGuestABI
internal import GuestMemory
internal import PhysicalMemory

extension Generator {
  private static let bufferPage: UInt64 = 0x440

  func choosePolicyCall(_ model: borrowing Model, _ task: ModelTask) -> Call {
    if !model.policy.wasTaken || random.chance(2) { return .getControl(result: chooseResult(task)) }
    let handle = task.hasControl ? chooseHandle(model, task, .control) : chooseHandle(model, task, .any)
    if model.policy.holder != task.name || random.chance(3) {
      if random.chance(task.hasControl ? 20 : 50) { return .policyCommit(handle) }
      let page = random.chance(95) ? Self.bufferPage + UInt64(random.number(below: 4)) : PM_USER_END >> 12
      let address = page << 12 | (random.chance(2) ? 8 : 0)
      return .getPolicyBuffer(handle, at: address, result: chooseResult(task))
    }
    let page = task.mappings.first { $0.value.container === model.policy.buffer && model.isGood($0.value) }?.key
    let address = (page ?? Self.bufferPage) << 12
    switch random.number(below: 100) {
    case 0..<40: return .policyCommit(handle)
    case ..<50: return .load(at: address, count: 4096, .read)
    case ..<52: return .unmap(at: address, count: 1)
    default: return .setPolicy(at: address, chooseEntry(model), isDirect: random.chance(30))
    }
  }

  private func chooseEntry(_ model: borrowing Model) -> PolicyArgument {
    let slot = random.chance(5) ? UInt32(random.number(below: 64)) : UInt32(random.number(below: world.tasks))
    var guaranteed = UInt64(random.number(0...80))
    if random.chance(30), let task = model.task(TaskSlot(slot)) {
      // Up to all that it has, or all that exists.
      let most = random.chance(50) ? model.allocated(task) : model.unclaimed + model.claim(task)
      guaranteed = UInt64(max(0, most + random.number(0...2) - 1))
    }
    if random.chance(4) { guaranteed = random.one(of: [.max, 1 << 63, UInt64(Int.max), UInt64(world.frames)]) ?? 0 }
    var entry = PolicyArgument(slot: slot, guaranteed: guaranteed, extra: random.chance(70) ? 1 : 0)
    if random.chance(10) { entry.extra = .max }
    if random.chance(10) { entry.swapQuota = random.next() }
    if random.chance(15) { entry.garbage = random.one(of: [1, 77, .max, 1 << 63]) ?? 1 }
    return entry
  }
}
