// All invariants, each checked from both ends by a walk over the whole state. For tests, and for the simulation, which
// runs it after every step: the walk visits each object once or twice and keeps its results in arrays.

internal import CGuestABI
internal import GuestMemory

/// The result of a walk over all containers.
struct ContainerCensus {
  /// The number of virtual frames that name each content.
  var sharers: [UInt32]
  /// Virtual frames in use or promised, by slot of the owner.
  var allocated: [Int]
  var allocatedByServer = 0
  var contents = 0
  var pins = 0

  init(contents: Int, tasks: Int) {
    sharers = Array(repeating: 0, count: contents)
    allocated = Array(repeating: 0, count: tasks)
  }
}

/// The result of a walk over all frames.
private struct FrameCensus {
  var inUse = 0
  var tables = 0
  var reserved = 0
  var pinned = 0
  /// Transfers under way, counted once a frame.
  var transfers = 0
  var placed = 0
  /// Leaves in the reverse map.
  var places = 0
}

extension ServerState {
  /// Returns a sentence for each violation.
  mutating func violations() -> [String] {
    var found = pool.checkInvariants()
    var census = ContainerCensus(contents: contents.numberLimit, tasks: tasks.capacity)
    countContainers(&census, &found)
    let frames = checkFrames(census, &found)
    checkLeaves(frames, &found)
    checkAccounts(census, frames, &found)
    checkWaiting(&found)
    checkDemands(&found)
    checkPolicy(&found)
    checkGracePeriods(&found)
    return found
  }

  /// Each change of a container under way belongs to a task's call.
  private func checkChanges(_ found: inout [String]) {
    var changes: [ContainerReference: Int] = [:]
    tasks.forEachIndex { task in
      for container in tasks[task].changing { changes[container, default: 0] += 1 }
    }
    containers.forEachIndex { slot in
      let expected = changes[reference(slot), default: 0]
      if containers[slot].changes != expected {
        found.append("container slot \(slot.rawValue) counts \(containers[slot].changes) changes, not \(expected)")
      }
    }
  }

  /// Counts the references of all container ids.
  private func countContainers(_ census: inout ContainerCensus, _ found: inout [String]) {
    containers.forEachIndex { slot in
      let owner = containers[slot].owner
      let allocated = containers[slot].frames.count + containers[slot].promised
      if owner == .server {
        census.allocatedByServer += allocated
      } else {
        census.allocated[Int(owner.rawValue)] += allocated
      }
      let isRight = containers[slot].frames.forEachContent { _, number in
        if census.sharers[Int(number.rawValue)] == 0 { census.contents += 1 }
        census.sharers[Int(number.rawValue)] += 1
      }
      if !isRight { found.append("container slot \(slot.rawValue) has a wrong count of ids in use") }
      if let lock = containers[slot].lock, !isKnown(lock, on: slot) {
        found.append("the lock of container slot \(slot.rawValue) is not in its holder's list")
      }
      checkPins(slot, &census, &found)
    }
    checkChanges(&found)
    countReleased(&census, &found)
    if census.contents != contents.count {
      found.append("\(contents.count) contents exist, and \(census.contents) are named by a virtual frame")
    }
    if census.pins != pins.count { found.append("containers count \(census.pins) pins, and there are \(pins.count)") }
    if !pins.isConsistent() { found.append("the lists of pins are inconsistent") }
  }

  private func isKnown(_ lock: ContainerLock, on slot: ContainerSlot) -> Bool {
    guard tasks.contains(lock.holder) else { return false }
    var next = tasks[lock.holder].firstLocked
    while let locked = next, locked != slot { next = containers[locked].lock?.next }
    return next == slot
  }

  /// Checks a container's counts of pins against the pin table.
  private func checkPins(_ slot: ContainerSlot, _ census: inout ContainerCensus, _ found: inout [String]) {
    var counted = 0
    containers[slot].frames.forEachPinCount { _, count in counted += count }
    if counted != containers[slot].frames.pinnedCount {
      found.append(
        "container slot \(slot.rawValue) counts \(counted) pins, its ids \(containers[slot].frames.pinnedCount)")
    }
    census.pins += counted
    guard counted > 0 || containers[slot].pinsOfOthers != 0 else { return }
    var ofOthers = 0
    var ids: UInt64 = 0
    while let id = containers[slot].frames.firstNearPinned(ids..<(1 << 32)) {
      ids = id.position + 1
      guard let pin = pin(slot, id) else { continue }
      counted -= 1
      if pin.isEnded || pin.task != containers[slot].owner { ofOthers += 1 }
    }
    if counted != 0 { found.append("container slot \(slot.rawValue) counts \(counted) more pins than its ids have") }
    if ofOthers != containers[slot].pinsOfOthers {
      found.append(
        "\(ofOthers) pins keep container slot \(slot.rawValue), and \(containers[slot].pinsOfOthers) are counted")
    }
  }

  /// A pinned frame holds a content named by exactly the id of its pin.
  private func checkPin(_ frame: FrameNumber, _ census: inout FrameCensus, _ found: inout [String]) {
    let pinned = pins[frame]
    let number = ContentNumber(pool.records[frame].owner)
    census.pinned += 1
    census.transfers += Int(pinned.transfers)
    if contents[number].sharers != 1 { found.append("content \(number.rawValue) is pinned and shared") }
    if !containers.contains(pinned.place.container)
      || containers[pinned.place.container].frames[pinned.place.id].content != number
    {
      found.append("frame \(frame.rawValue) does not match its pin")
    }
    if pinned.pin.isEnded, pinned.transfers == 0 {
      found.append("frame \(frame.rawValue) has an ended pin and no transfer")
    }
  }

  /// Checks frames against the contents they hold, contents against the ids that name them, and page tables and pins
  /// against their counts.
  private func checkFrames(_ census: ContainerCensus, _ found: inout [String]) -> FrameCensus {
    var frames = FrameCensus()
    for frame in 0..<UInt32(pool.count) {
      let record = pool.records[FrameNumber(frame)]
      switch record.state {
      case .table: frames.tables += 1
      case .reserved: frames.reserved += 1
      case .inUse:
        frames.inUse += 1
        if record.flags.contains(.pinned) { checkPin(FrameNumber(frame), &frames, &found) }
        if record.flags.contains(.pinned) != pins[FrameNumber(frame)].isPinned {
          found.append("frame \(frame) has a pinned record without a pin, or the reverse")
        }
        if record.flags.contains(.placed) { frames.placed += 1 }
        if record.link != 0 { frames.places += reverseMap.count(record.link) }
        checkContent(of: frame, record.owner, census, &found)
      default: break
      }
    }
    if frames.inUse != contents.count {
      found.append("\(frames.inUse) frames are in use, \(contents.count) contents have one")
    }
    if frames.pinned != pins.count {
      found.append("\(frames.pinned) frames are marked as pinned, and \(pins.count) are counted")
    }
    if frames.transfers != pins.transfers {
      found.append("pins count \(frames.transfers) frames in transfers, and there are \(pins.transfers)")
    }
    if frames.placed != placedFrames {
      found.append("\(frames.placed) frames are marked as placed, and \(placedFrames) are counted")
    }
    if frames.tables != tables.used { found.append("\(frames.tables) frames are tables, \(tables.used) are counted") }
    if !revocations.zaps.isEmpty || !revocations.unused.isEmpty { found.append("a revocation is unfinished") }
    return frames
  }

  private func checkContent(of frame: UInt32, _ number: UInt32, _ census: ContainerCensus, _ found: inout [String]) {
    guard number >= ContentTable.firstNumber, Int(number) < census.sharers.count else {
      return found.append("frame \(frame) is in use for content \(number), which does not exist")
    }
    let content = contents[ContentNumber(number)]
    let count = census.sharers[Int(number)]
    if content.frame.rawValue != frame || count == 0 {
      found.append("frame \(frame) is in use for content \(number), which has another frame or no sharer")
    }
    if content.sharers != count {
      found.append("content \(number) counts \(content.sharers) sharers, and \(count) virtual frames name it")
    }
  }

  /// Checks every leaf against its mapping and the reverse map, and both counts of leaves.
  private mutating func checkLeaves(_ frames: FrameCensus, _ found: inout [String]) {
    let spaces = spaces
    var leaves = 0
    var next = tasks.occupied(from: TaskSlot(0))
    while let slot = next {
      next = tasks.occupied(after: slot)
      guard tasks[slot].hasSpace else { continue }
      var region = UInt64.max
      var surplus = 0
      spaces.forEachLeaf(slot) { page, leaf in
        leaves += 1
        if page.rawValue >> 9 != region {
          region = page.rawValue >> 9
          checkSuperpage(slot, PageNumber(region << 9), &found)
        }
        if let violation = violation(slot, page, leaf, &surplus) {
          found.append("task slot \(slot.rawValue): \(violation)")
        }
      }
      if surplus > surplusPlaces.perTask { found.append("task slot \(slot.rawValue) has \(surplus) surplus leaves") }
    }
    if frames.places != leaves {
      found.append("the reverse map has \(frames.places) leaves, the page tables have \(leaves)")
    }
  }

  /// Checks that each leaf behind a superpage agrees with it.
  private func checkSuperpage(_ task: TaskSlot, _ start: PageNumber, _ found: inout [String]) {
    guard let superpage = spaces.superpage(task, start) else { return }
    for index in 0..<PoolMemory.framesPerBlock {
      let leaf = MappedPage(frame: superpage.frame.advanced(by: index), rights: superpage.rights)
      if spaces.mappedPage(task, start.advanced(by: index)) != leaf {
        found.append(
          "task slot \(task.rawValue): leaf \(index) differs from superpage \(String(start.rawValue, radix: 16))"
        )
      }
    }
  }

  private mutating func violation(
    _ task: TaskSlot, _ page: PageNumber, _ leaf: MappedPage, _ surplus: inout Int
  ) -> String? {
    func at(_ text: String) -> String { "page \(String(page.rawValue, radix: 16)) \(text)" }
    guard let index = tasks[task].mappings.find(page) else { return at("has a leaf and no mapping") }
    let mapping = tasks[task].mappings[index]
    let container = mapping.container.slot
    guard isCurrent(mapping.container) else { return at("shows a container that no longer exists") }
    if mapping.epoch != 0, mapping.epoch != containers[container].epoch {
      return at("shows a revoked share")
    }
    guard let number = containers[container].frames[mapping.frame(at: page)].content else {
      return at("shows a virtual frame without a content")
    }
    let content = contents[number]
    if content.frame != leaf.frame { return at("shows frame \(leaf.frame.rawValue), not the content's") }
    if !leaf.rights.isSubset(of: mapping.flags.effectiveRights) { return at("permits more than its mapping") }
    if leaf.rights.contains(.write), content.sharers > 1 { return at("permits writes to a shared content") }
    let shown = ContainerFrame(container: container, id: mapping.frame(at: page))
    let place = MappedPlace(task, page, showing: shown, isWeak: mapping.epoch != 0)
    var known: MappedPlace?
    reverseMap.forEach(in: pool.records[leaf.frame].link) { if $0 == place { known = $0 } }
    guard let known else { return at("is not in the reverse map") }
    if known.isSurplus { surplus += 1 }
    return known.withoutSurplus.rawValue == place.rawValue ? nil : at("belongs to another task in the reverse map")
  }

  /// Checks charges against containers, claims against the ledger, and frames against the pool.
  private func checkAccounts(_ census: ContainerCensus, _ frames: FrameCensus, _ found: inout [String]) {
    var claimed = 0
    var allocated = 0
    var taken = 0
    var withdrawn = tables.reserved + machineFrames + census.allocatedByServer
    for request in reclaim.requests where request.isWithdrawal { claimed += request.count }
    tasks.forEachIndex { slot in
      let entitlement = tasks[slot].entitlement
      claimed += entitlement.claim
      withdrawn += tasks[slot].extraTables + tasks[slot].withdrawn
      taken += tasks[slot].reservedTables
      let owned = census.allocated[Int(slot.rawValue)] + tasks[slot].setAside
      allocated += entitlement.allocated
      if entitlement.allocated != owned {
        found.append(
          "task slot \(slot.rawValue) is charged \(entitlement.allocated) frames, and its containers have \(owned)")
      }
    }
    if tables.taken > tables.reserved { found.append("more tables are taken from the reserve than it has") }
    if taken != tables.taken { found.append("\(taken) tables are from the reserve, \(tables.taken) are counted") }
    if claimed != ledger.claimed {
      found.append("the ledger has \(ledger.claimed) claimed, the tasks claim \(claimed)")
    }
    if claimed > ledger.allocatable { found.append("claims exceed the allocatable frames") }
    if allocated != ledger.allocated {
      found.append("the ledger has \(ledger.allocated) allocated, the tasks have \(allocated)")
    }
    if allocated > ledger.allocatable { found.append("allocations exceed the allocatable frames") }
    let allocatable = max(0, pool.count - frames.reserved - withdrawn)
    if ledger.allocatable != allocatable {
      found.append("\(allocatable) frames are allocatable, the ledger says \(ledger.allocatable)")
    }
  }

  /// Checks waiting tasks against what they wait for.
  private func checkWaiting(_ found: inout [String]) {
    endpoints.forEachIndex { slot in
      let reference = EndpointReference(slot: slot, generation: endpoints.generation(at: slot))
      let owner = endpoints[slot].owner
      if !tasks.contains(owner) || !tasks[owner].endpoints.contains(reference) {
        found.append("endpoint \(slot.rawValue) is not in its owner's list")
      } else {
        for level in endpoints[slot].receivers {
          if case .receiving(reference, _) = wait(Waiter(owner, level)) { continue }
          found.append("endpoint \(slot.rawValue) has a receiver that does not wait for it")
        }
        if !endpoints[slot].receivers.isEmpty, !endpoints[slot].queue.isEmpty {
          found.append("endpoint \(slot.rawValue) has a receiver and callers")
        }
      }
      for caller in endpoints[slot].queue {
        if tasks.contains(caller.task), case .queued(reference, _) = wait(caller) { continue }
        found.append("endpoint \(slot.rawValue) has a caller that does not wait for it")
      }
    }
    tasks.forEachIndex { slot in
      for level in WaitLevel.allCases {
        let waiter = Waiter(slot, level)
        switch wait(waiter) {
        case .received(let server, _, _):
          if !tasks.contains(server) || !tasks[server].received.contains(waiter) {
            found.append("task slot \(slot.rawValue) waits for a reply from a task without its call")
          }
        case .name:
          if !names.waiting.contains(waiter) { found.append("task slot \(slot.rawValue) is no waiter of its name") }
        default: break
        }
      }
    }
  }
}
