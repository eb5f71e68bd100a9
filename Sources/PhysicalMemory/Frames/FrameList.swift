// Doubly linked lists of free frames, linked through the frames' own records.
//
// A list is a ring through its head, a record after the last frame's, so that the ends are no special case and removal
// from the middle needs no search. A record is on at most one list.

internal import GuestMemory

/// A list, named by the index of its head in the table's records.
struct FrameList: BitwiseCopyable {
  let head: UInt32
}

extension FrameTable {
  func count(of list: FrameList) -> Int { Int(storage[Int(list.head)].owner) }

  func isEmpty(_ list: FrameList) -> Bool { storage[Int(list.head)].next == list.head }

  func first(of list: FrameList) -> FrameNumber? {
    let first = storage[Int(list.head)].next
    return first == list.head ? nil : FrameNumber(first)
  }

  func next(after frame: FrameNumber, in list: FrameList) -> FrameNumber? {
    let next = self[frame].next
    return next == list.head ? nil : FrameNumber(next)
  }

  /// Pushes a frame onto the front of a list. The caller sets its state.
  mutating func push(_ frame: FrameNumber, onto list: FrameList) {
    let head = Int(list.head)
    let first = storage[head].next
    storage[Int(frame.rawValue)].link = UInt64(list.head) << 32 | UInt64(first)
    storage[Int(first)].previous = frame.rawValue
    storage[head].next = frame.rawValue
    storage[head].owner += 1
  }

  /// Removes a frame from its list. The caller overwrites its state and its stale links.
  mutating func remove(_ frame: FrameNumber, from list: FrameList) {
    let link = storage[Int(frame.rawValue)].link
    let next = UInt32(truncatingIfNeeded: link)
    let previous = UInt32(truncatingIfNeeded: link >> 32)
    storage[Int(previous)].next = next
    storage[Int(next)].previous = previous
    storage[Int(list.head)].owner -= 1
  }

  mutating func popFirst(of list: FrameList) -> FrameNumber? {
    guard let frame = first(of: list) else { return nil }
    remove(frame, from: list)
    return frame
  }
}
