// The naive model's data: objects as tasks know them, without frame records, leaves, reverse maps or bounded steps.

internal import GuestMemory
internal import PhysicalMemory

/// A page of data. All virtual frames that are logical copies of each other name one content.
final class ModelContent {
  var bytes: [UInt8]
  /// How many virtual frames name it, including image pages and released frames.
  var sharers = 0
  /// Its released virtual frames. The first is accounted with the content itself; the others, youngest first, count
  /// against their task's allowance.
  var releases: [ModelRelease] = []
  /// Only released frames name it.
  var isReleased = false
  /// The frame in which the machine last showed it.
  var frame: FrameNumber?
  /// In the area for page tables, because no other frame was free.
  var isInTableArea = false
  /// Placed: it must stay in its frame.
  var isPlaced = false

  init(_ bytes: [UInt8]) { self.bytes = bytes }

  static let zeros = [UInt8](repeating: 0, count: 4096)
}

/// What an id in use holds.
enum ModelFrame {
  /// Never touched, without a physical frame.
  case empty
  case content(ModelContent)
}

/// A container.
final class ModelContainer {
  /// Nil: the server itself.
  let owner: TaskName?
  var handle: UInt32 = 0
  var isLive = true
  /// The ids in use.
  var frames: [UInt32: ModelFrame] = [:]
  /// Released ids that can be recovered.
  var released: [UInt32: ModelRelease] = [:]
  /// Released ids that were never touched.
  var releasedEmpties: Set<UInt32> = []
  /// Weak capabilities of another epoch are revoked.
  var epoch = 1
  var lock: (holder: TaskName, start: UInt64, deadline: UInt64)?
  /// Pins by id. After its holder's end a pin has no holder and lasts as long as its transfer.
  var pins: [UInt32: (holder: TaskName?, deadline: UInt64)] = [:]
  /// Number of transfers under way, by id.
  var transfers: [UInt32: Int] = [:]

  init(owner: TaskName?) { self.owner = owner }
}

/// A released virtual frame.
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

/// An endpoint, with the callers that wait at it.
final class ModelEndpoint {
  var owner: TaskName
  var isLive = true
  var queue: [TaskName] = []

  init(owner: TaskName) { self.owner = owner }
}

/// What a handle names.
enum ModelTarget {
  case task
  case peer(TaskID)
  case container(ModelContainer)
  case weak(ModelContainer, epoch: Int, holder: TaskID?)
  case endpoint(ModelEndpoint, mayReceive: Bool)
  case control
}

/// Handles. The low 16 bits are the entry, the others its generation. The entry freed last is reused first.
struct ModelHandles {
  struct Entry {
    var reuse: UInt32 = 0
    var target: ModelTarget?
    var name: HandleName?
  }

  /// Entry 0 is never used.
  private(set) var entries: [Entry] = [Entry()]
  private var free: [Int] = []
  /// The most recently dropped handles.
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

/// A mapped page.
struct ModelMapping {
  let container: ModelContainer
  let id: UInt32
  let flags: MappingFlags
  /// Nil: the owner's.
  let epoch: Int?
  /// Of the image or the stack; the server does not forget these mappings.
  var isInitial = false
}

/// What a task waits for, and the address for the result.
enum ModelWait {
  case none
  case queued(ModelEndpoint, at: UInt64)
  case received(by: TaskName, at: UInt64, call: UInt64)
  case receiving(ModelEndpoint, at: UInt64)
  case name([UInt8], at: UInt64)
  case finished(CallFailure?)

  /// The result goes to that page. It could not be mapped again in time.
  func needs(_ page: PageNumber) -> Bool {
    switch self {
    case .none, .finished: return false
    case .queued(_, let address), .received(_, let address, _), .receiving(_, let address), .name(_, let address):
      return page.rawValue >= address / 4096 && page.rawValue <= (address + UInt64(ModelMessage.size - 1)) / 4096
    }
  }
}

/// A task.
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
  /// The containers it owns, unordered.
  var containers: [ModelContainer] = []
  /// Mappings by page number.
  var mappings: [UInt64: ModelMapping] = [:]
  var wait = ModelWait.none
  /// Labels of the operations that sent the call it waits with, and the message it received.
  var message = 0
  var calls: [(label: Int, number: UInt64, isAnswered: Bool)] = []
  /// Received calls whose callers no longer wait.
  var abandoned: Set<UInt64> = []
  var isEnding = false
  /// Not visible to others yet.
  var isStarting = true
  /// The task has its first frames.
  var hasFrames = false
  /// Until when it waits for a decision about it before it starts; 0: it does not wait.
  var policyDeadline: UInt64 = 0
  /// Its last `allocated` value seen in the policy buffer.
  var noted: UInt64 = 0
  /// The call that waits for frames, and its label.
  var pending: (call: Call, label: Int)?
  /// Frames set aside for that call.
  var setAside = 0
  /// Frames outside its account that its last call or access lacked, and those withdrawn for it since.
  var lacking = 0
  var withdrawn = 0
  /// Its most recent released frames whose contents others had released before.
  var furtherReleases: [ModelRelease] = []
  /// Its most recent released ids that were never touched.
  var emptyReleases: [(container: ModelContainer, id: UInt32)] = []
  /// Frames demanded of it, oldest first; and how many its handler has not been told of.
  var demands: [ModelDemand] = []
  var untold = 0
  var lastTurn: UInt64 = 0
  /// Dropped for missing a deadline: it makes no more calls and is about to end.
  var isDropped = false
  /// CPU time in nanoseconds.
  var processorTime: UInt64 = 0
  var hasSpace = false
  /// Its tables: from the reserve, and from unclaimed frames.
  var reservedTables = 0
  var extraTables = 0
  /// The obstacle of its last placement.
  var obstacle: Obstacle?
  /// The address and access at which a call stopped.
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
  /// Whether it can make calls.
  var isRunning: Bool { !isEnding && !isStarting && !isDropped }
  var isWaiting: Bool { if case .none = wait { false } else { true } }
  var initialContainer: ModelContainer? { if case .container(let container) = handles[2] { container } else { nil } }
}
