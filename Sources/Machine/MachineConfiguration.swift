// The parameters of a machine.

public import PhysicalMemory

/// What a machine is made of and how it runs.
public struct MachineConfiguration: Sendable {
  /// Bytes of the frame pool, rounded down to whole frames.
  public var memory: Int
  /// Populate the host's page tables for the whole pool at the start, so that no fault pays for it.
  public var isPopulated: Bool
  /// Number of prezeroed frames kept ready.
  public var stock: Int
  /// Blocks of 2 MiB kept ready for superpages, at most; a small pool keeps fewer or none. 0: no superpages.
  public var blocks = 32
  /// For tests: microseconds between revocations of random frames; nil: none.
  public var revocationInterval: UInt64?
  /// The most frames a second whose memory goes back to the host while they stay free; 0: none. A populated pool keeps
  /// its memory.
  public var framesGivenBackASecond = 1 << 16
  /// How extra frames are reclaimed from tasks.
  public var reclaim = ReclaimRules()
  /// When the pool is defragmented.
  public var defragmentation = DefragmentationMode.background
  /// Each task records the fragmentation of free memory at its end (`GuestTask.fragmentation`).
  public var keepsFragmentation = false
  /// The server's statistics include how long its lock is held.
  public var measuresHolds = false
  /// For tests: microseconds between moves of random contents; nil: none.
  public var moveInterval: UInt64?
  /// The machine's disks, devices 0, 1, …; at most `mostDisks`.
  public var disks: [DiskConfiguration] = []

  /// - Parameters:
  ///   - memory: bytes of the frame pool.
  ///   - isPopulated: populate the pool at the start.
  ///   - stock: prezeroed frames.
  ///   - revocationInterval: for tests, microseconds between revocations; nil: none.
  public init(
    memory: Int = 256 << 20, isPopulated: Bool = false, stock: Int = 1024, revocationInterval: UInt64? = nil
  ) {
    self.revocationInterval = revocationInterval
    self.memory = memory
    self.isPopulated = isPopulated
    self.stock = stock
  }

  /// For tests: tasks may use protection keys, as on a KVM that leaves PKRU to the processor. KVM must support them.
  package var hasProtectionKeys = false
  /// What RDTSCP and RDPID return to tasks, on a KVM that virtualises IA32_TSC_AUX.
  package var processorNumber: UInt32 = 0

  /// Whether contents are moved continuously.
  var movesContents: Bool { moveInterval != nil || defragmentation == .continuous }

  /// The smallest pool, in bytes.
  public static let leastMemory = 1 << 20
  /// The largest pool, in bytes.
  public static let mostMemory = 4 << 40
  /// The most disks of a machine.
  public static let mostDisks = Devices.most
}
