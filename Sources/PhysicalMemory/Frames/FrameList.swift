// Lists of free frames, linked both ways through the frames' own records.
//
// A list is a ring through its head, a record behind the last frame's: no end needs a case of its own, and a frame
// leaves from the middle without a search. A record that is on a list is on one only.

internal import GuestMemory

/// A list, by the index of its head in the table's records.
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

  /// Puts a frame at the front of a list. Its state is the caller's to set.
  mutating func push(_ frame: FrameNumber, onto list: FrameList) {
    let head = Int(list.head)
    let first = storage[head].next
    storage[Int(frame.rawValue)].link = UInt64(list.head) << 32 | UInt64(first)
    storage[Int(first)].previous = frame.rawValue
    storage[head].next = frame.rawValue
    storage[head].owner += 1
  }

  /// Takes a frame off the list it is on, and leaves its state and its stale links for the caller to overwrite.
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
