// Storage for the records of tasks, containers and the like: indexed, in place, never moved.
//
// The life of a slot: untouched (above the high-water mark) → occupied → empty (on the free list) → occupied … Its
// generation counts the changes, even when empty and odd when occupied, so that a stale handle, which keeps the
// generation, is detected.

/// Up to `capacity` elements at fixed addresses. Insertion and removal take constant time and do not allocate; memory
/// use grows to the highest index ever occupied.
@safe
struct Slab<Index: SlabIndex, Element: ~Copyable>: ~Copyable {
  let capacity: Int
  /// Occupied slots.
  private(set) var count = 0
  /// Slots from here on were never occupied.
  private var highWaterMark: UInt32 = 0
  /// The next empty slot to use, plus 1; 0: none below the high-water mark.
  private var firstEmpty: UInt32 = 0
  private var storage: SlabStorage<Element>

  /// - Parameter capacity: the maximum number of elements, at least one. Address space is reserved in chunks as they
  ///   come.
  /// - Throws: `ReservationError` when there is no address space for the first chunk.
  init(capacity: Int) throws(ReservationError) {
    precondition(capacity > 0 && capacity < Int(UInt32.max), "a slab's capacity is from 1 to 2^32 - 2")
    storage = try SlabStorage(capacity: capacity)
    self.capacity = capacity
  }

  deinit {
    for index in 0..<highWaterMark where contains(Index(index)) {
      // SAFETY: an odd generation means that the slot holds an element; `storage` is freed after this.
      unsafe storage.element(index).deinitialize(count: 1)
    }
  }

  @inline(__always)
  func contains(_ index: Index) -> Bool { index.rawValue < highWaterMark && generation(at: index) & 1 == 1 }

  /// Changes whenever the slot is filled or emptied, which distinguishes a handle's element from a later one in the
  /// same slot.
  @inline(__always)
  func generation(at index: Index) -> UInt32 {
    // SAFETY: `slot` checks that the memory exists.
    unsafe storage.slot(index.rawValue).pointee.generation
  }

  /// For tests: ages a slot as if it had been reused that often.
  mutating func age(_ index: Index, to generation: UInt32) {
    precondition(self.generation(at: index) & 1 == generation & 1, "an occupied slot has an odd generation")
    // SAFETY: `slot` checks that the memory exists; access to `self` is exclusive.
    unsafe storage.slot(index.rawValue).pointee.generation = generation
  }

  /// The index that the next `insert` uses, unless the host has no memory; nil when the slab is full.
  var nextIndex: Index? {
    if firstEmpty != 0 { return Index(firstEmpty - 1) }
    return Int(highWaterMark) < capacity ? Index(highWaterMark) : nil
  }

  /// Stores an element and returns its index: the slot emptied last, otherwise the lowest unused one. Returns nil and
  /// destroys the element when the slab is full or the host has no address space.
  mutating func insert(_ element: consuming Element) -> Index? {
    guard let index = nextIndex, storage.reserve(index.rawValue) else { return nil }
    // SAFETY: the slot has memory and held no element; access to `self` is exclusive.
    let slot = unsafe storage.slot(index.rawValue)
    if index.rawValue == highWaterMark {
      highWaterMark += 1
    } else {
      firstEmpty = unsafe slot.pointee.nextEmpty
    }
    unsafe slot.pointee.generation &+= 1
    count += 1
    unsafe storage.element(index.rawValue).initialize(to: element)
    return index
  }

  /// Removes the element of an occupied slot and returns it.
  mutating func remove(at index: Index) -> Element {
    precondition(contains(index), "removal from an empty slot")
    // SAFETY: the slot held an element, and the new generation marks it empty; access to `self` is exclusive.
    let slot = unsafe storage.slot(index.rawValue)
    unsafe slot.pointee.generation &+= 1
    count -= 1
    // Retire a slot whose generations are used up: a stale handle must never match a later element.
    if unsafe slot.pointee.generation != 0 {
      unsafe slot.pointee.nextEmpty = firstEmpty
      firstEmpty = index.rawValue + 1
    }
    return unsafe storage.element(index.rawValue).move()
  }

  /// Accesses the element of an occupied slot in place.
  subscript(index: Index) -> Element {
    @inline(__always)
    unsafeAddress {
      precondition(contains(index), "an empty slot")
      // SAFETY: the slot holds an element, which stays there while `self` is borrowed.
      return unsafe UnsafePointer(storage.element(index.rawValue))
    }
    @inline(__always)
    unsafeMutableAddress {
      precondition(contains(index), "an empty slot")
      // SAFETY: the slot holds an element, and access to `self` is exclusive.
      return unsafe storage.element(index.rawValue)
    }
  }

  /// The first occupied index from `index` on. For loops that change elements: `var next = slab.occupied(from:
  /// Index(0)); while let index = next { …; next = slab.occupied(after: index) }`.
  func occupied(from index: Index) -> Index? {
    var number = index.rawValue
    while number < highWaterMark {
      if contains(Index(number)) { return Index(number) }
      number += 1
    }
    return nil
  }

  func occupied(after index: Index) -> Index? { occupied(from: Index(index.rawValue + 1)) }

  /// Calls `body` with each occupied index, in ascending order.
  func forEachIndex<Failure>(_ body: (Index) throws(Failure) -> Void) throws(Failure) {
    var next = occupied(from: Index(0))
    while let index = next {
      try body(index)
      next = occupied(after: index)
    }
  }
}

// SAFETY: the storage has one owner and cannot be copied; exclusive access to the slab is exclusive access to its
// elements.
extension Slab: @unchecked Sendable where Element: Sendable, Element: ~Copyable {}
