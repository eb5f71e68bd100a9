// A block device's registers: those of virtio over MMIO at the same offsets, but drivers access them by calls
// (docs/internals/decisions/0013).
// Source: virtio 1.2, 4.2.2 "MMIO device register layout", 2.1 "device status field", 5.2.4 "device configuration".

internal import GuestMemory

/// The registers of one device, and the queue that they configure.
struct VirtioRegisters {
  /// Register offsets in bytes.
  enum Offset {
    static let magic: UInt32 = 0x000
    static let version: UInt32 = 0x004
    static let device: UInt32 = 0x008
    static let vendor: UInt32 = 0x00c
    static let deviceFeatures: UInt32 = 0x010
    static let deviceFeaturesSelector: UInt32 = 0x014
    static let driverFeatures: UInt32 = 0x020
    static let driverFeaturesSelector: UInt32 = 0x024
    static let queueSelector: UInt32 = 0x030
    static let queueMostSize: UInt32 = 0x034
    static let queueSize: UInt32 = 0x038
    static let queueReady: UInt32 = 0x044
    static let queueNotify: UInt32 = 0x050
    static let interruptStatus: UInt32 = 0x060
    static let interruptAcknowledge: UInt32 = 0x064
    static let status: UInt32 = 0x070
    static let queueDescriptors: UInt32 = 0x080
    static let queueAvailable: UInt32 = 0x090
    static let queueUsed: UInt32 = 0x0a0
    static let configuration: UInt32 = 0x100
    /// The end of the register space.
    static let end: UInt32 = 0x200
  }

  /// Bits of the device status.
  enum Status {
    static let featuresOK: UInt32 = 8
    static let driverOK: UInt32 = 4
    static let needsReset: UInt32 = 64
    /// The bits that a driver may set.
    static let all: UInt32 = 1 | 2 | driverOK | featuresOK | 128
  }

  /// Feature bits.
  enum Feature {
    static let mostSegmentSize: UInt64 = 1 << 1
    static let mostSegments: UInt64 = 1 << 2
    static let readOnly: UInt64 = 1 << 5
    static let flush: UInt64 = 1 << 9
    static let eventIndex: UInt64 = 1 << 29
    static let version1: UInt64 = 1 << 32
    /// VIRTIO_F_ACCESS_PLATFORM: the device only reaches memory that the server permits.
    static let accessPlatform: UInt64 = 1 << 33
    static let needed = version1 | accessPlatform
  }

  private let sectorCount: UInt64
  private let offered: UInt64
  private(set) var status: UInt32 = 0
  private(set) var interruptStatus: UInt32 = 0
  private var deviceSelector: UInt32 = 0
  private var driverSelector: UInt32 = 0
  private var accepted: UInt64 = 0
  private(set) var queueSelector: UInt32 = 0
  private var queueSize: UInt32 = 0
  private var isQueueReady = false
  private var addresses: (descriptors: UInt64, available: UInt64, used: UInt64) = (0, 0, 0)

  init(_ file: BackingFile) {
    sectorCount = file.sectorCount
    var features = Feature.needed | Feature.mostSegmentSize | Feature.mostSegments | Feature.flush | Feature.eventIndex
    if file.isReadOnly { features |= Feature.readOnly }
    offered = features
  }

  /// The queue to serve; nil: none is ready.
  var queue: Virtqueue? {
    guard status & Status.driverOK != 0, status & Status.needsReset == 0, isQueueReady, let layout else { return nil }
    return Virtqueue(layout, usesEventIndex: accepted & Feature.eventIndex != 0)
  }

  private var layout: QueueLayout? {
    QueueLayout(
      size: queueSize, descriptors: addresses.descriptors, available: addresses.available, used: addresses.used)
  }

  mutating func fail() {
    status |= Status.needsReset
    interruptStatus |= 2
  }

  mutating func noteInterrupt() { interruptStatus |= 1 }

  // MARK: Reading

  func read(_ offset: UInt32) -> UInt32 {
    switch offset {
    case Offset.magic: 0x7472_6976  // "virt"
    case Offset.version: 2
    case Offset.device: 2
    case Offset.vendor: 0x6d79_6870  // "phym"
    case Offset.deviceFeatures: deviceSelector < 2 ? UInt32(truncatingIfNeeded: offered >> (32 * deviceSelector)) : 0
    case Offset.queueMostSize: queueSelector == 0 ? UInt32(QueueLayout.mostSize) : 0
    case Offset.queueReady: queueSelector == 0 && isQueueReady ? 1 : 0
    case Offset.interruptStatus: interruptStatus
    case Offset.status: status
    case Offset.configuration: UInt32(truncatingIfNeeded: sectorCount)
    case Offset.configuration + 4: UInt32(truncatingIfNeeded: sectorCount >> 32)
    case Offset.configuration + 8: BlockFormat.mostSegmentSize
    // Header and status take a descriptor each.
    case Offset.configuration + 12: UInt32(QueueLayout.mostSize) - 2
    default: 0
    }
  }

  // MARK: Writing

  /// Writes a register. Writing 0 to the status or to QueueReady is left to the device: see `reset` and `stopQueue`.
  mutating func write(_ offset: UInt32, _ value: UInt32) {
    switch offset {
    case Offset.deviceFeaturesSelector: deviceSelector = value
    case Offset.driverFeaturesSelector: driverSelector = value
    case Offset.queueSelector: queueSelector = value
    case Offset.driverFeatures where status & Status.featuresOK == 0 && driverSelector < 2:
      let shift = 32 * UInt64(driverSelector)
      accepted = accepted & ~(0xffff_ffff << shift) | UInt64(value) << shift
    case Offset.interruptAcknowledge: interruptStatus &= ~value
    case Offset.status: writeStatus(value)
    case Offset.queueSize...(Offset.queueUsed + 4) where queueSelector == 0 && !isQueueReady: writeQueue(offset, value)
    default: break
    }
  }

  private mutating func writeStatus(_ value: UInt32) {
    var value = value & Status.all
    // Rejects features that are not offered, and drivers that do not accept restricted memory access.
    let isAgreed = accepted & ~offered == 0 && accepted & Feature.needed == Feature.needed
    if status & Status.featuresOK == 0, !isAgreed { value &= ~Status.featuresOK }
    if (status | value) & Status.featuresOK == 0 { value &= ~Status.driverOK }
    status |= value
  }

  private mutating func writeQueue(_ offset: UInt32, _ value: UInt32) {
    func low(_ word: inout UInt64) { word = word & 0xffff_ffff_0000_0000 | UInt64(value) }
    func high(_ word: inout UInt64) { word = word & 0xffff_ffff | UInt64(value) << 32 }
    switch offset {
    case Offset.queueSize: queueSize = value
    case Offset.queueDescriptors: low(&addresses.descriptors)
    case Offset.queueDescriptors + 4: high(&addresses.descriptors)
    case Offset.queueAvailable: low(&addresses.available)
    case Offset.queueAvailable + 4: high(&addresses.available)
    case Offset.queueUsed: low(&addresses.used)
    case Offset.queueUsed + 4: high(&addresses.used)
    // An invalid queue does not become ready.
    case Offset.queueReady: isQueueReady = value == 1 && layout != nil
    default: break
    }
  }

  mutating func stopQueue() { isQueueReady = false }

  mutating func reset() {
    status = 0
    interruptStatus = 0
    deviceSelector = 0
    driverSelector = 0
    accepted = 0
    queueSelector = 0
    queueSize = 0
    isQueueReady = false
    addresses = (0, 0, 0)
  }
}
