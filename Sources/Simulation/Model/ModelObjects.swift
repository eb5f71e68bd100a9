// What the naive model consists of: things as tasks know them. It knows nothing of records, leaves, reverse maps and
// bounded steps.

internal import GuestMemory
internal import PhysicalMemory

/// A page of data. All virtual frames that are logical copies of each other name the same one.
final class ModelContent {
  var bytes: [UInt8]
  /// How many virtual frames name it; an image's own pages count too, and released frames.
  var sharers = 0
  /// The first is as good as the content's own; the others, the youngest first, count against their task's allowance.
  var releases: [ModelRelease] = []
  /// Nothing else names it.
  var isReleased = false
  /// Where the machine showed it to be.
  var frame: FrameNumber?
  /// In the area for page tables, nothing else having been free.
  var isInTableArea = false
  /// It stays in the frame where it is.
  var isPlaced = false

  init(_ bytes: [UInt8]) { self.bytes = bytes }

  static let zeros = [UInt8](repeating: 0, count: 4096)
}

enum ModelFrame {
  /// Never touched: there is no physical frame.
  case empty
  case content(ModelContent)
}

final class ModelContainer {
  /// nil: the server itself.
  let owner: TaskName?
  var handle: UInt32 = 0
  var isLive = true
  /// The ids in use.
  var frames: [UInt32: ModelFrame] = [:]
  /// Ids that can be recovered.
  var released: [UInt32: ModelRelease] = [:]
  /// Those of them that were never touched.
  var releasedEmpties: Set<UInt32> = []
  /// Weak capabilities of another epoch are void.
  var epoch = 1
  var lock: (holder: TaskName, start: UInt64, deadline: UInt64)?
  /// Nobody holds one whose task has ended; it is there for as long as a transfer is.
  var pins: [UInt32: (holder: TaskName?, deadline: UInt64)] = [:]
  /// Under way in the frames of ids.
  var transfers: [UInt32: Int] = [:]

  init(owner: TaskName?) { self.owner = owner }
}

/// A released frame.
final class ModelRelease {
  let container: ModelContainer
  let id: UInt32
  let content: ModelContent

  init(_ container: ModelContainer, _ id: UInt32, _ content: ModelContent) {
    self.container = container
    self.id = id
    self.content = content
  }
}

final class ModelEndpoint {
  var owner: TaskName
  var isLive = true
  var queue: [TaskName] = []

  init(owner: TaskName) { self.owner = owner }
}

enum ModelTarget {
  case task
  case peer(TaskID)
  case container(ModelContainer)
  case weak(ModelContainer, epoch: Int, holder: TaskID?)
  case endpoint(ModelEndpoint, mayReceive: Bool)
  case control
}

/// Handles: the low 16 bits are the entry, the others count how often it was used before. The entry freed last is the
/// next to be used.
struct ModelHandles {
  struct Entry {
    var reuse: UInt32 = 0
    var target: ModelTarget?
    var name: HandleName?
  }

  /// Entry 0 is nobody's.
  private(set) var entries: [Entry] = [Entry()]
  private var free: [Int] = []
  /// The last that are no more.
  private(set) var dropped: [(name: HandleName, number: UInt32)] = []

  private func index(_ number: UInt32) -> Int? {
    let index = Int(number & 0xffff)
    return index < entries.count && entries[index].reuse == number >> 16 ? index : nil
  }

  subscript(_ number: UInt32) -> ModelTarget? { index(number).flatMap { entries[$0].target } }

  func number(at index: Int) -> UInt32 { entries[index].reuse << 16 | UInt32(index) }

  func number(_ name: HandleName) -> UInt32? {
    if let index = entries.firstIndex(where: { $0.name == name }) { return number(at: index) }
    return dropped.first { $0.name == name }?.number
  }

  mutating func insert(_ target: ModelTarget, _ name: HandleName) -> UInt32 {
    if let index = free.popLast() {
      entries[index].target = target
      entries[index].name = name
      return number(at: index)
    }
    entries.append(Entry(target: target, name: name))
    return UInt32(entries.count - 1)
  }

  mutating func remove(_ number: UInt32) {
    guard let index = index(number) else { return }
    if let name = entries[index].name {
      if dropped.count >= 8 { dropped.removeFirst() }
      dropped.append((name, number))
    }
    entries[index] = Entry(reuse: entries[index].reuse + 1)
    free.append(index)
  }
}

struct ModelMapping {
  let container: ModelContainer
  let id: UInt32
  let flags: MappingFlags
  /// nil: the owner's.
  let epoch: Int?
  /// Of the image or the stack: the server does not forget it.
  var isInitial = false
}

enum ModelWait {
  case none
  case queued(ModelEndpoint, at: UInt64)
  case received(by: TaskName, at: UInt64, call: UInt64)
  case receiving(ModelEndpoint, at: UInt64)
  case name([UInt8], at: UInt64)
  case finished(CallFailure?)

  /// What it brings goes to that page: the task could not map it again before it is too late.
  func needs(_ page: PageNumber) -> Bool {
    switch self {
    case .none, .finished: return false
    case .queued(_, let address), .received(_, let address, _), .receiving(_, let address), .name(_, let address):
      return page.rawValue >= address / 4096 && page.rawValue <= (address + UInt64(ModelMessage.size - 1)) / 4096
    }
  }
}

final class ModelTask {
  let name: TaskName
  let slot: TaskSlot
  let id: TaskID
  let image: Int
  var guaranteed: Int
  var hasContract: Bool
  var mayUseExtra: Bool
  let keepsMappings: Bool
  let around: Around
  var handles = ModelHandles()
  /// Those it owns, in no order.
  var containers: [ModelContainer] = []
  /// By page number.
  var mappings: [UInt64: ModelMapping] = [:]
  var wait = ModelWait.none
  /// Which message made the call that it waits with, and what it received: labels of operations.
  var message = 0
  var calls: [(label: Int, number: UInt64, isAnswered: Bool)] = []
  /// Calls that it received and whose callers have gone on since.
  var abandoned: Set<UInt64> = []
  var isEnding = false
  /// Not there for others yet.
  var isStarting = true
  /// It has its first frames.
  var hasFrames = false
  /// Until when it waits, before it begins, for what is decided about it; 0: it does not.
  var policyDeadline: UInt64 = 0
  /// What the policy buffer was last seen to say that it has.
  var noted: UInt64 = 0
  /// The call that waits for frames, and its label.
  var pending: (call: Call, label: Int)?
  /// Frames that have been found for that call.
  var setAside = 0
  /// What its last call or access lacked that goes to nobody's account, and what was withdrawn for it since.
  var lacking = 0
  var withdrawn = 0
  /// Its last released frames whose contents had been released by others before.
  var furtherReleases: [ModelRelease] = []
  /// The last that were never touched.
  var emptyReleases: [(container: ModelContainer, id: UInt32)] = []
  /// What it is asked to give back, the oldest first; and what of it its handler has not been told.
  var demands: [ModelDemand] = []
  var untold = 0
  var lastTurn: UInt64 = 0
  /// It was late: it makes no calls any more, and is about to end.
  var isDropped = false
  /// In nanoseconds.
  var processorTime: UInt64 = 0
  var hasSpace = false
  /// Tables of its space: from those set aside, and from what nobody claimed.
  var reservedTables = 0
  var extraTables = 0
  /// What was in the way of its last placement.
  var obstacle: Obstacle?
  /// The page at which a call was stuck, and the access.
  var pointerFault: (address: UInt64, access: Access)?

  init(
    name: TaskName, slot: TaskSlot, id: TaskID, image: Int, _ parameters: TaskParameters, guaranteed: Int,
    hasContract: Bool, around: Around
  ) {
    self.name = name
    self.slot = slot
    self.id = id
    self.image = image
    self.around = around
    self.guaranteed = guaranteed
    self.hasContract = hasContract
    mayUseExtra = parameters.mayUseExtra
    keepsMappings = parameters.keepsMappings
  }

  var demanded: Int { demands.reduce(0) { $0 + $1.count } }
  var hasControl: Bool {
    !isEnding && handles.entries.contains { if case .control = $0.target { true } else { false } }
  }
  /// It can make calls.
  var isRunning: Bool { !isEnding && !isStarting && !isDropped }
  var isWaiting: Bool { if case .none = wait { false } else { true } }
  var initialContainer: ModelContainer? { if case .container(let container) = handles[2] { container } else { nil } }
}
