// What the server knows of one task.
//
// The life of a task:
//  1. live: it makes calls, its mappings are served.
//  2. ending: nothing is served any more; leaves, containers and address space go back in bounded steps.
//  3. gone: the slot is free for another task, with another id.

internal import GuestMemory

/// Never used for a second task of a machine.
public struct TaskID: Hashable, Sendable, CustomStringConvertible {
  public let rawValue: UInt64
  public init(_ rawValue: UInt64) { self.rawValue = rawValue }
  public var description: String { "\(rawValue)" }
}

/// How many pages one fault fills in, the page at fault and absent ones behind it in the same mapping.
public enum FaultAround: Equatable, Sendable {
  case fixed(Int)
  /// Doubles while faults go on where the last one left off, and is 1 otherwise.
  case automatic

  /// One leaf table's worth: no fault fills more.
  public static let most = 512
}

/// Counted since the task began.
public struct TaskCounters: Equatable, Sendable {
  /// Faults the server served, and the pages it filled in for them.
  public var faults: UInt64 = 0
  public var pages: UInt64 = 0
  /// Faults whose page was already as needed.
  public var spuriousFaults: UInt64 = 0
  /// Faults that were not the server's: for the task's handler, or its end.
  public var deliveredFaults: UInt64 = 0

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
  /// Leaves of these pages are being emptied, and the mappings behind them are still there: nobody fills them in again.
  var unmapping: Range<PageNumber>?
  /// It did not give frames back in time: it is about to end.
  var isDropped = false
  /// Frames charged for the call that waits for them.
  var setAside = 0
  /// Frames that its last call or access lacked and that go to nobody's account; and those withdrawn for it since.
  var lacking = 0
  var withdrawn = 0
  /// What it is asked to give back, the oldest first; and what of it its handler has not been told.
  var demands: [FrameDemand] = []
  var untold = 0
  /// When it was asked last.
  var lastTurn: UInt64 = 0
  /// Its containers whose frames are still to be released, once it is ending; and one whose destruction was given up.
  var dying: [ContainerSlot] = []
  /// The last pointer of a call that could not be followed.
  var pointerFault: (address: GuestAddress, access: Access, outcome: FaultOutcome)?
  /// A leaf of it was emptied, and has not been zapped.
  var isTouched = false
  /// The visit of its vCPU that a grace period waited for last.
  var awaited: Visit?
  /// It has an address space.
  var hasSpace = false
  /// What was in the way of its last placement that was refused.
  var obstacle: Obstacle?
  /// Page tables it took from the reserve, and from what nobody claimed.
  var reservedTables = 0
  var extraTables = 0
  /// The page up to which its leaves are gone, once it is ending; and how many handles.
  var closedHandles = 0
  var unmappedUpTo = PageNumber(0)
  var handles: HandleTable
  var mappings = MappingTable()
  var entitlement: Entitlement
  var counters = TaskCounters()
  var unexplained = UnexplainedFaults()
  /// A container that it has locked, or had, and nobody has looked since; the lock leads to the next one.
  var firstLocked: ContainerSlot?
  /// What it waits for at each level, and whose calls it has received and not answered.
  var waits: InlineArray<2, WaitState> = [.none, .none]
  var received: Set<Waiter> = []
  /// Calls it received whose callers have gone on since.
  var abandoned: Set<UInt64> = []
  /// Endpoints it receives from.
  var endpoints: Set<EndpointReference> = []
  /// Its handles that name control.
  var controls = 0
  /// While it is new: until when it waits for the policy server. 0: it does not.
  var policyDeadline: UInt64 = 0

  /// Frames asked back from it in all.
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
