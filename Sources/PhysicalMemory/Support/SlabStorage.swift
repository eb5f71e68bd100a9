// The memory of a slab: chunks of slots, each reserved when its first slot is used. A slab with a large capacity and
// few elements takes little address space, and its elements never move.

struct SlabSlot: BitwiseCopyable {
  /// Even: empty; odd: occupied.
  var generation: UInt32 = 0
  /// In an empty slot: the next empty one plus 1; 0: none.
  var nextEmpty: UInt32 = 0
}

@safe
struct SlabStorage<Element: ~Copyable>: ~Copyable {
  private static var chunkBits: Int { 16 }

  /// Slots in a chunk.
  private let chunkSlots: Int
  private let chunkLimit: Int
  private(set) var chunkCount = 1
  /// The base of each chunk, and the reservation that owns it.
  private let bases: UnsafeMutablePointer<UnsafeMutableRawPointer>
  private let reservations: UnsafeMutablePointer<AddressReservation>
  /// The offset of a chunk's elements, which follow its slots' records.
  private let elementsOffset: Int

  /// Reserves the first chunk.
  init(capacity: Int) throws(ReservationError) {
    let chunkSlots = min(capacity, 1 << Self.chunkBits)
    let elementsOffset = (chunkSlots * MemoryLayout<SlabSlot>.stride + 4095) & ~4095
    // Construct every fallible part first: a partly initialized value cannot free its parts.
    let first = try AddressReservation(byteCount: elementsOffset + chunkSlots * MemoryLayout<Element>.stride)
    self.chunkSlots = chunkSlots
    self.elementsOffset = elementsOffset
    chunkLimit = (capacity + chunkSlots - 1) / chunkSlots
    // SAFETY: both are freed in deinit, and accessed below `chunkCount` only, where they are initialized.
    unsafe bases = .allocate(capacity: chunkLimit)
    unsafe reservations = .allocate(capacity: chunkLimit)
    unsafe bases.initialize(to: first.base)
    unsafe reservations.initialize(to: first)
  }

  deinit {
    // SAFETY: `chunkCount` elements are initialized, and all borrows have ended.
    unsafe reservations.deinitialize(count: chunkCount)
    unsafe reservations.deallocate()
    unsafe bases.deallocate()
  }

  /// Reserves memory for a slot below the capacity.
  /// - Returns: false when the host refuses.
  mutating func reserve(_ index: UInt32) -> Bool {
    guard Int(index) >> Self.chunkBits >= chunkCount else { return true }
    precondition(Int(index) >> Self.chunkBits == chunkCount && chunkCount < chunkLimit, "slots are used in order")
    let byteCount = elementsOffset + chunkSlots * MemoryLayout<Element>.stride
    guard let next = try? AddressReservation(byteCount: byteCount) else { return false }
    // SAFETY: below the limit and not initialized yet.
    unsafe (bases + chunkCount).initialize(to: next.base)
    unsafe (reservations + chunkCount).initialize(to: next)
    chunkCount += 1
    return true
  }

  /// A slot's record: page aligned, zero at the start. Its chunk must be reserved.
  @unsafe
  @inline(__always)
  func slot(_ index: UInt32) -> UnsafeMutablePointer<SlabSlot> {
    unsafe base(index).assumingMemoryBound(to: SlabSlot.self) + place(index)
  }

  /// The memory of a slot's element. Its chunk must be reserved.
  @unsafe
  @inline(__always)
  func element(_ index: UInt32) -> UnsafeMutablePointer<Element> {
    unsafe (base(index) + elementsOffset).assumingMemoryBound(to: Element.self) + place(index)
  }

  @unsafe
  @inline(__always)
  private func base(_ index: UInt32) -> UnsafeMutableRawPointer {
    let chunk = Int(index) >> Self.chunkBits
    precondition(chunk < chunkCount, "a slot of an unreserved chunk")
    return unsafe bases[chunk]
  }

  @inline(__always)
  private func place(_ index: UInt32) -> Int { Int(index) & ((1 << Self.chunkBits) - 1) }
}
