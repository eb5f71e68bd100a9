// Who may still be looking at a frame whose leaves are gone: whoever is on the visit in which they went.

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

  /// A leaf is about to go.
  mutating func noteSeen(_ slot: TaskSlot, _ page: PageNumber) {
    guard let visit = visits[slot], let leaf = leaf(slot, page) else { return }
    noteUnsettled(slot, page)
    if seenIn[leaf.frame]?.last != visit { seenIn[leaf.frame, default: []].append(visit) }
  }

  /// A leaf is about to change: what the machine writes for the task may still be on its way to the frame.
  mutating func noteUnsettled(_ slot: TaskSlot, _ page: PageNumber) {
    guard let visit = visits[slot], let leaf = leaf(slot, page), leaf.rights.contains(.write) else { return }
    unsettled[leaf.frame, default: []].insert(visit.number)
  }

  /// The frame is about to be copied.
  mutating func checkSettled(_ frame: FrameNumber) {
    guard let writers = unsettled.removeValue(forKey: frame) else { return }
    for visit in visits.values where writers.contains(visit.number) {
      report("frame \(frame.rawValue) is copied while slot \(visit.slot.rawValue) may be writing it")
    }
  }

  /// The frame is about to be used for something else.
  mutating func checkUnseen(_ frame: FrameNumber, _ what: String) {
    guard let seen = seenIn.removeValue(forKey: frame) else { return }
    for visit in seen where visits[visit.slot] == visit {
      report("frame \(frame.rawValue) \(what) while slot \(visit.slot.rawValue) may be looking at it")
    }
  }
}
