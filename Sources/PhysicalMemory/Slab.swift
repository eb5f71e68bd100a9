// Storage for the records of tasks, containers and the like: by index, in place, never moved.
//
// The life of a slot: untouched (above the high-water mark) → occupied → empty (on the free list) → occupied … Its
// generation counts the changes: even when empty, odd when occupied, so that a handle that keeps the generation can be
// told to be stale.

internal import Glibc

/// Up to `capacity` elements at fixed addresses. Inserting and removing take constant time and allocate nothing; memory
/// is used up to the highest index that was ever occupied.
@safe
struct Slab<Element: ~Copyable>: ~Copyable {
  private struct Slot: BitwiseCopyable {
    var generation: UInt32 = 0
    /// Of an empty slot: the next empty one plus 1, or 0.
    var nextEmpty: UInt32 = 0
  }

  let capacity: Int
  /// Occupied slots.
  private(set) var count = 0
  /// Slots from here on have never been occupied.
  private var highWaterMark: UInt32 = 0
  /// The empty slot to use next, plus 1; 0: none below the high-water mark.
  private var firstEmpty: UInt32 = 0
  private var slots: SparseArray<Slot>
  private let reservation: AddressReservation
  private let elements: UnsafeMutablePointer<Element>

  /// Reserves address space for `capacity` elements, at least one.
  init(capacity: Int) throws(ReservationError) {
    precondition(capacity > 0 && capacity < Int(UInt32.max), "a slab's capacity is from 1 to 2^32 - 2")
    // Both before anything is stored: a value with a deinit may not be left half made.
    let slots = try SparseArray<Slot>(count: capacity)
    let reservation = try AddressReservation(byteCount: capacity * MemoryLayout<Element>.stride)
    self.capacity = capacity
    self.slots = slots
    self.reservation = reservation
    // SAFETY: page aligned and large enough; only slots that hold an element are accessed.
    unsafe self.elements = self.reservation.base.bindMemory(to: Element.self, capacity: capacity)
  }

  deinit {
    for index in 0..<Int(highWaterMark) where slots[index].generation & 1 == 1 {
      // SAFETY: an odd generation says that the slot holds an element; `reservation` is unmapped after this.
      unsafe (elements + index).deinitialize(count: 1)
    }
  }

  func contains(_ index: UInt32) -> Bool { index < highWaterMark && slots[Int(index)].generation & 1 == 1 }

  /// Changes whenever the slot is filled or emptied, so that it tells a handle's element from a later one in the same
  /// slot.
  func generation(at index: UInt32) -> UInt32 { slots[Int(index)].generation }

  /// For tests: makes an empty slot, or an occupied one, as old as if it had been used that often.
  mutating func age(_ index: UInt32, to generation: UInt32) {
    precondition(slots[Int(index)].generation & 1 == generation & 1, "an occupied slot is of an odd generation")
    slots[Int(index)].generation = generation
  }

  /// The index that the next `insert` uses; nil when the slab is full.
  var nextIndex: UInt32? {
    if firstEmpty != 0 { return firstEmpty - 1 }
    return Int(highWaterMark) < capacity ? highWaterMark : nil
  }

  /// Stores an element and returns its index: that of the slot emptied last, else the lowest never used. When the slab
  /// is full the element is destroyed and nil returned.
  mutating func insert(_ element: consuming Element) -> UInt32? {
    guard let index = nextIndex else { return nil }
    if index == highWaterMark {
      highWaterMark += 1
    } else {
      firstEmpty = slots[Int(index)].nextEmpty
    }
    slots[Int(index)].generation &+= 1
    count += 1
    // SAFETY: the slot is below the capacity and held no element.
    unsafe (elements + Int(index)).initialize(to: element)
    return index
  }

  /// Takes the element out of an occupied slot.
  mutating func remove(at index: UInt32) -> Element {
    precondition(contains(index), "removing from an empty slot")
    slots[Int(index)].generation &+= 1
    count -= 1
    // A slot whose generations are used up is left alone: no handle ever takes one element for another.
    if slots[Int(index)].generation != 0 {
      slots[Int(index)].nextEmpty = firstEmpty
      firstEmpty = index + 1
    }
    // SAFETY: the slot held an element, and its generation now says that it does not.
    return unsafe (elements + Int(index)).move()
  }

  /// The element of an occupied slot, in place.
  subscript(index: UInt32) -> Element {
    @inline(__always)
    unsafeAddress {
      precondition(contains(index), "an empty slot")
      // SAFETY: the slot holds an element, which stays there while `self` is borrowed.
      return unsafe UnsafePointer(elements + Int(index))
    }
    @inline(__always)
    unsafeMutableAddress {
      precondition(contains(index), "an empty slot")
      // SAFETY: the slot holds an element, and access to `self` is exclusive.
      return unsafe elements + Int(index)
    }
  }

  /// The first occupied index from `index` on. For loops that change elements as they go:
  /// `var next = slab.occupied(from: 0); while let index = next { …; next = slab.occupied(from: index + 1) }`.
  func occupied(from index: UInt32) -> UInt32? {
    var index = index
    while index < highWaterMark {
      if contains(index) { return index }
      index += 1
    }
    return nil
  }

  /// Calls `body` with each occupied index, in ascending order.
  func forEachIndex<Failure>(_ body: (UInt32) throws(Failure) -> Void) throws(Failure) {
    var next = occupied(from: 0)
    while let index = next {
      try body(index)
      next = occupied(from: index + 1)
    }
  }
}

// SAFETY: both mappings have one owner, which nothing can copy; whoever holds the slab holds its elements alone.
extension Slab: @unchecked Sendable where Element: Sendable, Element: ~Copyable {}
