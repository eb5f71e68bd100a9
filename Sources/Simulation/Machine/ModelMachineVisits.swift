// Tracks which visits may still access a frame whose leaves are gone: those during which a leaf was removed.

internal import GuestMemory
internal import PhysicalMemory

extension ModelMachineState {
  func visit(_ slot: TaskSlot) -> Visit? { visits[slot] }

  mutating func enter(_ slot: TaskSlot) {
    guard visits[slot] == nil else { return }
    visitCount += 1
    visits[slot] = Visit(slot: slot, number: visitCount)
  }

  mutating func leave(_ slot: TaskSlot) { visits[slot] = nil }

  /// Called before a leaf is removed.
  mutating func noteSeen(_ slot: TaskSlot, _ page: PageNumber) {
    guard let visit = visits[slot], let leaf = leaf(slot, page) else { return }
    noteUnsettled(slot, page)
    if seenIn[leaf.frame]?.last != visit { seenIn[leaf.frame, default: []].append(visit) }
  }

  /// Called before a leaf changes: writes of the machine for the task may still be on their way to the frame.
  mutating func noteUnsettled(_ slot: TaskSlot, _ page: PageNumber) {
    guard let visit = visits[slot], let leaf = leaf(slot, page), leaf.rights.contains(.write) else { return }
    unsettled[leaf.frame, default: []].insert(visit.number)
  }

  /// Called before the frame is copied.
  mutating func checkSettled(_ frame: FrameNumber) {
    guard let writers = unsettled.removeValue(forKey: frame) else { return }
    for visit in visits.values where writers.contains(visit.number) {
      report("frame \(frame.rawValue) is copied while slot \(visit.slot.rawValue) may be writing it")
    }
  }

  /// Called before the frame is reused.
  mutating func checkUnseen(_ frame: FrameNumber, _ what: String) {
    guard let seen = seenIn.removeValue(forKey: frame) else { return }
    for visit in seen where visits[visit.slot] == visit {
      report("frame \(frame.rawValue) \(what) while slot \(visit.slot.rawValue) may be looking at it")
    }
  }
}
