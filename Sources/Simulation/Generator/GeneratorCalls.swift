// Chooses a task's next call.

internal import CGuestABI
internal import GuestMemory
internal import PhysicalMemory

extension Generator {
  private func chooseKind() -> Kind {
    let number = random.number(below: sums[sums.count - 1])
    return Kind.allCases[sums.firstIndex { $0 > number } ?? 0]
  }

  func chooseCall(_ model: borrowing Model, _ task: ModelTask) -> Call {
    if let call = chooseRegionCall(model, task) { return call }
    switch chooseKind() {
    case .load:
      let access: Access = random.chance(85) ? .read : .execute
      return .load(at: chooseAddress(task), count: random.chance(5) ? 4096 : 4, access)
    case .store: return .store(at: chooseAddress(task), UInt32(truncatingIfNeeded: random.next()))
    case .read: return .read(at: chooseAddress(task, 40), count: random.one(of: [0, 1, 40, 4096, 9000]) ?? 0)
    case .write: return .write(at: chooseAddress(task, 40), count: random.one(of: [0, 1, 40, 5000]) ?? 0, 0x5a)
    case .check:
      return .check(at: chooseAddress(task), count: random.one(of: [0, 1, 5000, 1 << 30, 1 << 62]) ?? 0)
    case .createContainer: return .createContainer(result: chooseResult(task))
    case .destroy: return .destroyContainer(chooseHandle(model, task, .own))
    case .allocate: return chooseAllocation(model, task)
    case .deallocate: return chooseDeallocation(model, task)
    case .map: return chooseMapping(model, task)
    case .unmap:
      let address = choosePage() << 12
      var count = UInt32(random.number(1...6))
      if random.chance(2) { count = random.one(of: [0, .max, 100_000]) ?? 0 }
      return .unmap(at: random.chance(2) ? address | 8 : address, count: count)
    case .mapping: return .mapping(at: chooseAddress(task))
    case .sample:
      let address = choosePage() << 12
      let count =
        random.chance(2) ? (random.one(of: [0, .max, 65_537] as [UInt32]) ?? 0) : UInt32(random.number(1...8))
      return .sample(
        at: random.chance(2) ? address | 8 : address, count: count, flags: random.chance(2) ? 1 : 0,
        result: chooseResult(task, 8))
    case .copy: return chooseCopy(model, task)
    case .releaseData:
      let handle = chooseHandle(model, task, .own)
      let it = container(model, task, handle)
      let ids = (0..<random.number(random.chance(2) ? 0...0 : 1...5)).map { _ in chooseUsedID(it) }
      return .releaseData(handle, ids, at: chooseResult(task, 20))
    case .releasePages:
      let handle = chooseHandle(model, task, .own)
      let it = container(model, task, handle)
      if random.chance(hunger) {
        let start = chooseAnyUsedID(it)
        let ids = Array(start..<start &+ min(chooseCount(it, start, most: 60), 60, .max - start))
        return .releasePages(handle, ids, at: chooseResult(task, 240))
      }
      let ids = (0..<random.number(random.chance(2) ? 0...0 : 1...6)).map { _ in chooseUsedID(it) }
      return .releasePages(handle, ids, at: chooseResult(task, 24))
    case .recoverPages:
      let handle = chooseHandle(model, task, .own)
      let ids = chooseReleasedIDs(container(model, task, handle))
      return .recoverPages(
        handle, ids, at: chooseResult(task, 24), frameError: random.chance(50) ? 0 : chooseResult(task))
    case .expiredPages:
      let handle = chooseHandle(model, task, .own)
      let ids = chooseReleasedIDs(container(model, task, handle))
      return .expiredPages(handle, ids, at: chooseResult(task, 24), result: chooseResult(task, 6))
    case .createFilled: return chooseFilled(model, task)
    case .share:
      return .share(chooseHandle(model, task, .own), remote: chooseRemote(model, task), result: chooseResult(task))
    case .revoke: return .revoke(chooseHandle(model, task, .own))
    case .lock: return .lock(chooseHandle(model, task, .weak), microseconds: chooseTime())
    case .unlock: return .unlock(chooseHandle(model, task, .weak))
    case .pin, .unpin: return choosePin(model, task, isPin: random.chance(60))
    case .beginTransfer: return chooseTransfer(model, task)
    case .endTransfer: return .endTransfer(random.number(below: 8))
    case .createEndpoint: return .createEndpoint(result: chooseResult(task))
    case .call:
      return .call(
        chooseHandle(model, task, .endpoint), chooseMessage(model, task), at: chooseResult(task, 104),
        mayWait: random.chance(80))
    case .receive:
      return .receive(
        chooseHandle(model, task, .receiver), at: chooseResult(task, 104), mayWait: random.chance(50))
    case .reply: return .reply(chooseReply(task), chooseMessage(model, task), at: chooseResult(task, 104))
    case .replyAndReceive:
      return .replyAndReceive(
        chooseHandle(model, task, .receiver), chooseReply(task), chooseMessage(model, task),
        at: chooseResult(task, 104), mayWait: random.chance(50))
    case .registerName:
      return .registerName(chooseName(), at: chooseResult(task, 8), chooseHandle(model, task, .receiver))
    case .lookUpName:
      return .lookUpName(
        chooseName(), at: chooseResult(task, 8), result: chooseResult(task), mayWait: random.chance(60))
    case .drop: return .drop(chooseHandle(model, task, .any))
    case .policy: return choosePolicyCall(model, task)
    case .allocatePlaced: return choosePlacedAllocation(model, task)
    case .defragment:
      return .defragment(
        chooseHandle(model, task, task.hasControl ? .control : .any), result: chooseResult(task))
    }
  }

  func chooseAnyUsedID(_ it: ModelContainer?) -> UInt32 {
    random.one(of: it?.frames.keys.sorted() ?? []) ?? chooseID(it)
  }

  private func chooseReleasedIDs(_ it: ModelContainer?) -> [UInt32] {
    let released = it?.released.keys.sorted() ?? []
    return (0..<random.number(random.chance(2) ? 0...0 : 1...6)).map { _ in
      random.chance(4) ? chooseUsedID(it) : random.one(of: released) ?? chooseID(it)
    }
  }

  private func chooseAllocation(_ model: borrowing Model, _ task: ModelTask) -> Call {
    let handle = chooseHandle(model, task, .own)
    let it = container(model, task, handle)
    var start = chooseID(it)
    var flags = UInt32(random.number(below: 8))
    // Half of the ranges are of unused ids.
    if random.chance(60) {
      for _ in 0..<4 where it?.frames[start] != nil { start = chooseID(it) }
      flags &= ~UInt32(PM_ALLOC_SQUASH)
    }
    if random.chance(1) { flags = random.one(of: [8, 1 << 31, .max]) ?? 8 }
    var count = UInt32(random.number(1...8))
    if random.chance(hunger) {
      count = UInt32(random.number(10...90))
      // Away from released ids, so that those stay until they expire.
      if random.chance(60) { start = UInt32(random.number(1...7) * 100) }
    }
    if random.chance(3) { count = random.one(of: [0, .max, .max - start, UInt32(world.frames)]) ?? 0 }
    return .allocate(handle, start: start, count: count, at: chooseResult(task), flags: flags)
  }

  private func chooseDeallocation(_ model: borrowing Model, _ task: ModelTask) -> Call {
    let handle = chooseHandle(model, task, .own)
    let it = container(model, task, handle)
    let start = chooseUsedID(it)
    var flags = UInt32(random.number(below: 4))
    if random.chance(1) { flags = random.one(of: [4, .max]) ?? 4 }
    return .deallocate(
      handle, start: start, count: chooseCount(it, start, most: 5), at: chooseResult(task), flags: flags)
  }

  private func chooseMapping(_ model: borrowing Model, _ task: ModelTask) -> Call {
    let handle = chooseHandle(model, task, .container)
    let it = container(model, task, handle)
    let isLarge = random.chance(hunger)
    let start = isLarge ? chooseAnyUsedID(it) : chooseUsedID(it)
    var flags = UInt32(random.number(below: 32))
    if random.chance(70) { flags |= UInt32(PM_MAP_READ | PM_MAP_WRITE) }
    if random.chance(1) { flags = random.one(of: [0, 16, 32, .max]) ?? 0 }
    let page = random.chance(96) ? UInt64(1) << 18 - 5 + UInt64(random.number(below: 12)) : choosePage()
    let address = page << 12 | (random.chance(1) ? 16 : 0)
    // Without the lazy flag the whole mapping takes frames.
    let most = isLarge ? 80 : 10
    return .map(handle, start: start, count: chooseCount(it, start, most: most), at: address, flags: flags)
  }

  private func chooseIDs(_ it: ModelContainer?, _ task: ModelTask, _ count: UInt32, _ start: UInt32) -> IDArgument {
    guard random.chance(40), count <= 16 else { return .from(start) }
    return .list((0..<count).map { _ in chooseUsedID(it) }, at: chooseResult(task, Int(count) * 4))
  }

  private func chooseCopy(_ model: borrowing Model, _ task: ModelTask) -> Call {
    let source = chooseHandle(model, task, .container)
    let destination = random.chance(40) ? source : chooseHandle(model, task, .container)
    let from = container(model, task, source)
    let to = container(model, task, destination)
    let start = chooseUsedID(from)
    let count = chooseCount(from, start, most: 8)
    var target = random.chance(50) ? chooseUsedID(to) : chooseID(to)
    // Overlapping ranges.
    if source == destination, random.chance(50) { target = start &+ UInt32(random.number(0...4)) &- 2 }
    return .copy(
      source, chooseIDs(from, task, count, start), to: destination, chooseIDs(to, task, count, target), count: count,
      frameError: random.chance(50) ? 0 : chooseResult(task))
  }

  private func chooseFilled(_ model: borrowing Model, _ task: ModelTask) -> Call {
    let remote = chooseRemote(model, task)
    let result = chooseResult(task)
    let weak = random.chance(40) ? 0 : chooseResult(task)
    guard random.chance(60) else {
      var count = UInt32(random.number(1...6))
      if random.chance(5) { count = random.one(of: [0, .max, 200]) ?? 0 }
      return .createFilled(.number(0), nil, count: count, remote: remote, result: result, weak: weak)
    }
    let source = chooseHandle(model, task, .container)
    let from = container(model, task, source)
    let start = chooseUsedID(from)
    let count = chooseCount(from, start, most: 6)
    return .createFilled(
      source, chooseIDs(from, task, count, start), count: count, remote: remote, result: result, weak: weak)
  }

  private func chooseRemote(_ model: borrowing Model, _ task: ModelTask) -> HandleArgument {
    random.chance(70) ? .number(0) : chooseHandle(model, task, random.chance(60) ? .endpoint : .any)
  }

  func chooseTime() -> UInt64 {
    if random.chance(3) { return random.one(of: [0, PM_LOCK_MAXIMUM_US, PM_LOCK_MAXIMUM_US + 1, .max]) ?? 0 }
    return UInt64(random.number(1...60))
  }

  private func choosePin(_ model: borrowing Model, _ task: ModelTask, isPin: Bool) -> Call {
    let handle = chooseHandle(model, task, .container)
    let it = container(model, task, handle)
    let isLarge = random.chance(hunger)
    let start = isLarge ? chooseAnyUsedID(it) : chooseUsedID(it)
    var count = random.chance(2) ? chooseCount(it, start) : chooseCount(it, start, most: random.chance(90) ? 3 : 40)
    // A pin makes all of its ids resident.
    if isLarge, isPin { count = chooseCount(it, start, most: 60) }
    guard isPin else { return .unpin(handle, start: start, count: count) }
    return .pin(
      handle, start: start, count: count, microseconds: chooseTime(),
      physical: chooseResult(task, Int(min(count, 40)) * 8))
  }

  /// Mostly of frames that the task has pinned, if there are any.
  private func chooseTransfer(_ model: borrowing Model, _ task: ModelTask) -> Call {
    for _ in 0..<8 {
      let handle = chooseHandle(model, task, random.chance(50) ? .container : .weak)
      guard let it = container(model, task, handle) else { continue }
      let now = model.now
      let pinned = it.pins.filter { $0.value.holder == task.name && $0.value.deadline > now }.keys.sorted()
      guard let start = random.one(of: pinned) else { continue }
      return .beginTransfer(handle, start: start, count: UInt32(random.number(1...3)))
    }
    let handle = chooseHandle(model, task, .container)
    return .beginTransfer(handle, start: chooseUsedID(container(model, task, handle)), count: 1)
  }

  private func chooseMessage(_ model: borrowing Model, _ task: ModelTask) -> MessageArgument {
    var message = MessageArgument()
    guard random.chance(75) else { return message }
    for _ in 0..<random.number(1...3) {
      switch random.number(below: 10) {
      case 0: message.handles.append(.number(0))
      case 1: message.handles.append(.number(UInt32(PM_CAP_SELF)))
      case 2, 3: message.handles.append(chooseHandle(model, task, random.chance(50) ? .receiver : .endpoint))
      case 4: message.handles.append(chooseHandle(model, task, .any))
      default: message.handles.append(chooseHandle(model, task, .weak))
      }
    }
    message.moves = random.chance(60) ? 0 : UInt32(random.number(below: 16))
    return message
  }

  private func chooseReply(_ task: ModelTask) -> ReplyArgument {
    if random.chance(4) { return .number(random.chance(50) ? 0 : random.next() >> 40) }
    if random.chance(90), let call = task.calls.last(where: { !$0.isAnswered }) { return .call(call.label) }
    return random.one(of: task.calls).map { .call($0.label) } ?? .number(UInt64(random.number(below: 1 << 20)))
  }

  private func chooseName() -> Int { random.chance(4) ? random.number(below: 4) : random.number(4...6) }
}
