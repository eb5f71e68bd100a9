// The server's record of one task.
//
// The life of a task:
//  1. live: it makes calls, and its faults are served.
//  2. ending: nothing is served any more; leaves, containers and address space are freed in bounded steps.
//  3. gone: the slot is free for another task, with another id.

internal import GuestMemory

/// A task's id, never reused within a machine.
public struct TaskID: Hashable, Sendable, CustomStringConvertible {
  /// The id as a number.
  public let rawValue: UInt64
  /// - Parameter rawValue: the id as a number.
  public init(_ rawValue: UInt64) { self.rawValue = rawValue }
  /// The id in decimal.
  public var description: String { "\(rawValue)" }
}

/// The number of pages one fault fills in: the page at fault and absent ones behind it in the same mapping.
public enum FaultAround: Equatable, Sendable {
  case fixed(Int)
  /// Doubles while faults are sequential, and is 1 otherwise.
  case automatic

  /// The maximum for one fault, in pages: one leaf table.
  public static let most = 512
}

/// Counters since the task began.
public struct TaskCounters: Equatable, Sendable {
  /// Faults the server served, and pages filled in for them.
  public var faults: UInt64 = 0
  /// Pages filled in for the served faults.
  public var pages: UInt64 = 0
  /// Faults whose leaf already permitted the access.
  public var spuriousFaults: UInt64 = 0
  /// Faults the server did not serve: delivered to the task's handler, or fatal.
  public var deliveredFaults: UInt64 = 0

  /// All zero.
  public init() {}
}

struct TaskRecord: ~Copyable {
  let id: TaskID
  /// At most PM_NAME_MAXIMUM bytes.
  let name: [UInt8]
  let initialContainer: ContainerReference
  let image: ImageNumber
  let faultAround: FaultAround
  let keepsMappings: Bool
  var isEnding = false
  /// Pages whose leaves are being cleared before their mappings are removed: they must not be filled in again.
  var unmapping: Range<PageNumber>?
  /// It missed a demand's deadline and is about to end.
  var isDropped = false
  /// Frames charged for the call that waits for them.
  var setAside = 0
  /// Frames its last call or access lacked that are charged to no task; and frames withdrawn for it since.
  var lacking = 0
  var withdrawn = 0
  /// Demands on it, the oldest first; and demanded frames its handler was not told of.
  var demands: [FrameDemand] = []
  var untold = 0
  /// The turn of the last demand on it.
  var lastTurn: UInt64 = 0
  /// While it is ending: containers whose frames are still to be freed. Before: one whose destruction was given up.
  var dying: [ContainerSlot] = []
  /// Containers that its call under way changes.
  var changing: [ContainerReference] = []
  /// The last pointer of a call that could not be followed.
  var pointerFault: (address: GuestAddress, access: Access, outcome: FaultOutcome)?
  /// A leaf of it was cleared and not zapped yet.
  var isTouched = false
  /// The visit of its vCPU that the last grace period waited for.
  var awaited: Visit?
  /// Whether it has an address space.
  var hasSpace = false
  /// What blocked its last refused placement.
  var obstacle: Obstacle?
  /// Page tables it took from the reserve, and from unclaimed frames.
  var reservedTables = 0
  var extraTables = 0
  /// While it is ending: the number of closed handles, and the page below which all leaves are gone.
  var closedHandles = 0
  var unmappedUpTo = PageNumber(0)
  var handles: HandleTable
  var mappings = MappingTable()
  var entitlement: Entitlement
  var counters = TaskCounters()
  var unexplained = UnexplainedFaults()
  /// The first of the containers it has locked; the locks link to the next. May include expired locks.
  var firstLocked: ContainerSlot?
  /// Its wait state at each level, and the calls it has received and not answered.
  var waits: InlineArray<2, WaitState> = [.none, .none]
  var received: Set<Waiter> = []
  /// Received calls whose callers timed out or ended.
  var abandoned: Set<UInt64> = []
  /// Endpoints it receives from.
  var endpoints: Set<EndpointReference> = []
  /// Its handles that name control.
  var controls = 0
  /// While it is new: the time until which it waits for the policy server; 0: it does not.
  var policyDeadline: UInt64 = 0

  /// The sum of the demands on it.
  var demanded: Int { demands.reduce(0) { $0 + $1.count } }

  init(
    id: TaskID, name: [UInt8], initialContainer: ContainerReference, image: ImageNumber, faultAround: FaultAround,
    keepsMappings: Bool,
    entitlement: Entitlement
  ) {
    self.id = id
    self.name = name
    self.initialContainer = initialContainer
    self.image = image
    self.faultAround = faultAround
    self.keepsMappings = keepsMappings
    self.entitlement = entitlement
    handles = HandleTable(initialContainer: initialContainer)
  }
}
