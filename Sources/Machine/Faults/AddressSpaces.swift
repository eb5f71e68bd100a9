// The address spaces of all task slots: open, or closed and kept for the slot's next task.

internal import GuestMemory
internal import PhysicalMemory
internal import Paging
import Synchronization

/// Address spaces by slot, stored in place, so that page tables change without a move.
// SAFETY: `places[n]` is initialised exactly when `states[n]` is not `.none`; both have `capacity` elements, and every
// slot is checked against it.
@safe
struct SpaceTable: ~Copyable {
  private enum State { case none, open, closed }

  private var states: [State]
  private let places: UnsafeMutablePointer<PageTables>

  init(capacity: Int) {
    states = Array(repeating: .none, count: capacity)
    unsafe places = .allocate(capacity: capacity)
  }

  deinit {
    for index in states.indices where states[index] != .none { unsafe (places + index).deinitialize(count: 1) }
    unsafe places.deallocate()
  }

  /// Opens the slot's kept space.
  /// - Returns: false if the slot has none.
  mutating func reopen(_ slot: TaskSlot) -> Bool {
    guard states[Int(slot.rawValue)] != .none else { return false }
    states[Int(slot.rawValue)] = .open
    return true
  }

  mutating func insert(_ slot: TaskSlot, _ tables: consuming PageTables) {
    precondition(states[Int(slot.rawValue)] == .none)
    unsafe (places + Int(slot.rawValue)).initialize(to: tables)
    states[Int(slot.rawValue)] = .open
  }

  mutating func remove(_ slot: TaskSlot) -> PageTables {
    precondition(states[Int(slot.rawValue)] != .none)
    states[Int(slot.rawValue)] = .none
    return unsafe (places + Int(slot.rawValue)).move()
  }

  mutating func markClosed(_ slot: TaskSlot) { states[Int(slot.rawValue)] = .closed }

  func tableCount(_ slot: TaskSlot) -> Int { self[slot].tableCount }

  func closedSlots() -> [TaskSlot] {
    states.indices.filter { states[$0] == .closed }.map { TaskSlot(UInt32($0)) }
  }

  subscript(slot: TaskSlot) -> PageTables {
    unsafeAddress {
      precondition(states[Int(slot.rawValue)] != .none, "no address space")
      return unsafe UnsafePointer(places + Int(slot.rawValue))
    }
    unsafeMutableAddress {
      precondition(states[Int(slot.rawValue)] != .none, "no address space")
      return unsafe places + Int(slot.rawValue)
    }
  }
}

/// Each slot's root frame, for the thread that sets CR3 of a vCPU.
final class RootTable: Sendable {
  private let roots: Mutex<[FrameNumber]>

  init(capacity: Int) { roots = Mutex(Array(repeating: .none, count: capacity)) }

  func set(_ slot: TaskSlot, _ root: FrameNumber) { roots.withLock { $0[Int(slot.rawValue)] = root } }

  subscript(slot: TaskSlot) -> FrameNumber { roots.withLock { $0[Int(slot.rawValue)] } }
}
