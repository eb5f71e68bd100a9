// A split virtqueue from the device's side: chains of descriptors that the driver offers, taken in order and returned.
//
// The queue is in the driver's memory, which may change at any moment: each word is read once, checked, and not read
// again. This code accesses no memory outside the three rings, for which the caller has begun a transfer. Source:
// virtio 1.2, 2.7 "split virtqueues".

internal import GuestMemory

/// The location of a queue, checked against the specification's rules.
struct QueueLayout: Equatable {
  let size: UInt16
  let descriptors: PhysicalAddress
  let available: PhysicalAddress
  let used: PhysicalAddress
  /// The descriptor table and the two rings.
  let ranges: [PhysicalRange]

  /// The largest supported queue.
  static let mostSize: UInt16 = 256

  /// Nil if the size is not a power of two or too large, or if a part is misaligned or wraps around the address space.
  init?(size: UInt32, descriptors: UInt64, available: UInt64, used: UInt64) {
    guard size > 0, size <= UInt32(Self.mostSize), size & (size - 1) == 0 else { return nil }
    guard descriptors % 16 == 0, available % 2 == 0, used % 4 == 0 else { return nil }
    self.size = UInt16(size)
    self.descriptors = PhysicalAddress(descriptors)
    self.available = PhysicalAddress(available)
    self.used = PhysicalAddress(used)
    let count = Int(size)
    // Each ring ends with a word for notification suppression.
    guard let first = PhysicalRange(self.descriptors, count: 16 * count),
      let second = PhysicalRange(self.available, count: 6 + 2 * count),
      let third = PhysicalRange(self.used, count: 6 + 8 * count)
    else { return nil }
    ranges = [first, second, third]
  }
}

/// The driver broke the queue's format. The device needs a reset.
enum QueueFailure: Error, Equatable {
  case tooManyAvailable(Int)
  case noSuchDescriptor(UInt16)
  case loop(head: UInt16)
  case indirect(UInt16)
  /// A request without a byte for its status.
  case noStatus(head: UInt16)
  case transfer(TransferFailure)

  var text: String {
    switch self {
    case .tooManyAvailable(let count): "\(count) chains are offered, more than the queue has descriptors"
    case .noSuchDescriptor(let index): "descriptor \(index) is beyond the queue's end"
    case .loop(let head): "the chain at descriptor \(head) does not end"
    case .indirect(let index): "descriptor \(index) is indirect, which was not negotiated"
    case .noStatus(let head): "the chain at descriptor \(head) does not end with a status byte"
    case .transfer(let failure): failure.text
    }
  }
}

/// One descriptor of a chain, with address and length unchecked.
struct ChainSegment: Equatable {
  let address: UInt64
  let count: UInt32
  let isWritable: Bool
}

/// A chain of descriptors that the driver has offered.
struct DescriptorChain: Equatable {
  let head: UInt16
  /// At most as many as the queue has descriptors.
  let segments: [ChainSegment]
}

/// The device's state of a split virtqueue.
struct Virtqueue {
  private enum Flag {
    static let next: UInt16 = 1
    static let write: UInt16 = 2
    static let indirect: UInt16 = 4
  }

  let layout: QueueLayout
  /// VIRTIO_F_EVENT_IDX was negotiated.
  let usesEventIndex: Bool
  /// The next chain to take, and the next used-ring entry. Both wrap around.
  private var nextAvailable: UInt16 = 0
  private var nextUsed: UInt16 = 0

  init(_ layout: QueueLayout, usesEventIndex: Bool) {
    self.layout = layout
    self.usesEventIndex = usesEventIndex
  }

  private func place(_ start: PhysicalAddress, _ offset: Int) -> PhysicalAddress {
    PhysicalAddress(start.rawValue + UInt64(offset))
  }

  // MARK: Taking

  func isEmpty(_ memory: some DeviceMemory) -> Bool { memory.load16(place(layout.available, 2)) == nextAvailable }

  /// Takes the next chain.
  /// - Returns: nil if the ring is empty.
  mutating func take(_ memory: some DeviceMemory) throws(QueueFailure) -> DescriptorChain? {
    let offered = memory.load16(place(layout.available, 2)) &- nextAvailable
    guard offered > 0 else { return nil }
    guard offered <= layout.size else { throw .tooManyAvailable(Int(offered)) }
    let head = memory.load16(place(layout.available, 4 + 2 * Int(nextAvailable % layout.size)))
    let chain = try walk(from: head, memory)
    nextAvailable &+= 1
    return chain
  }

  private func walk(from head: UInt16, _ memory: some DeviceMemory) throws(QueueFailure) -> DescriptorChain {
    var segments: [ChainSegment] = []
    segments.reserveCapacity(64)
    var index = head
    while true {
      guard index < layout.size else { throw .noSuchDescriptor(index) }
      guard segments.count < Int(layout.size) else { throw .loop(head: head) }
      let address = memory.load64(place(layout.descriptors, 16 * Int(index)))
      let rest = memory.load64(place(layout.descriptors, 16 * Int(index) + 8))
      let flags = UInt16(truncatingIfNeeded: rest >> 32)
      guard flags & Flag.indirect == 0 else { throw .indirect(index) }
      segments.append(
        ChainSegment(
          address: address, count: UInt32(truncatingIfNeeded: rest), isWritable: flags & Flag.write != 0))
      guard flags & Flag.next != 0 else { return DescriptorChain(head: head, segments: segments) }
      index = UInt16(truncatingIfNeeded: rest >> 48)
    }
  }

  // MARK: Giving back

  /// Returns a chain with the number of bytes written to it.
  /// - Returns: whether the driver wants an interrupt.
  mutating func giveBack(_ head: UInt16, written: UInt32, _ memory: some DeviceMemory) -> Bool {
    let element = 4 + 8 * Int(nextUsed % layout.size)
    memory.store32(place(layout.used, element), UInt32(head))
    memory.store32(place(layout.used, element + 4), written)
    nextUsed &+= 1
    memory.store16(place(layout.used, 2), nextUsed)
    // The driver does this in the opposite order: it enables the interrupt, then reads the ring.
    PoolMemory.fence()
    if usesEventIndex {
      let event = memory.load16(place(layout.available, 4 + 2 * Int(layout.size)))
      // This entry has just passed `event`.
      return nextUsed &- event &- 1 < 1
    }
    return memory.load16(layout.available) & 1 == 0
  }

  // MARK: Notifications

  /// Stops notifications while the device polls. With an event index there is nothing to do: the notification requested
  /// last has already arrived.
  func suppressNotifications(_ memory: some DeviceMemory) {
    if !usesEventIndex { memory.store16(layout.used, 1) }
  }

  /// Allows notifications again. The caller must check once more for chains offered before this.
  func allowNotifications(_ memory: some DeviceMemory) {
    if usesEventIndex {
      memory.store16(place(layout.used, 4 + 8 * Int(layout.size)), nextAvailable)
    } else {
      memory.store16(layout.used, 0)
    }
    PoolMemory.fence()
  }
}
