// The naive model: what the server should do, in the simplest form. It recomputes all sums, keeps whole pages of bytes,
// and derives rights at each access.

internal import CGuestABI
internal import GuestMemory
internal import PhysicalMemory

/// The state of the naive model.
struct Model: ~Copyable {
  struct Image {
    let program: Program
    /// The pages from the file, by segment.
    let contents: [[ModelContent]]
    let container: ModelContainer
  }

  let world: World
  var now: UInt64
  /// In order of their start, including those that are ending.
  var tasks: [ModelTask] = []
  /// By the label of the operation that loaded them.
  var images: [Int: Image] = [:]
  var tables: ModelTables
  /// The machine's own frames, each with its area.
  var machineFrames: [ModelArea] = []
  var names: [[UInt8]: ModelEndpoint] = [:]
  var callCount: UInt64 = 0
  var copiesOnWrite: UInt64 = 0
  /// Number of contents, which is the number of frames they use.
  var contentCount = 0
  /// Contents in the area for page tables, and placed contents.
  var tableAreaContents = 0
  var placedCount = 0
  var placement = ModelPlacementFigures()
  /// Tasks that the server must wake in this step.
  var woken: [TaskName] = []
  /// Slots that must be asked for frames, and those to be dropped.
  var asked: [TaskSlot] = []
  var dropped: [TaskSlot] = []
  /// Released frames, unordered; and contents that only released frames name, oldest first.
  var released: [ModelRelease] = []
  var releasedContents: [ModelContent] = []
  var expiredCount: UInt64 = 0
  var recoveredCount = 0
  var reclaim = ModelReclaim()
  var policy = ModelPolicy()
  var freeSlots: [UInt32] = []
  var slotsUsed: UInt32 = 0
  var lastID: UInt64 = 0
  /// A region is being gathered into a block.
  var isGathering = false
  var isForAnother = false

  init(world: World, now: UInt64) {
    self.world = world
    self.now = now
    tables = ModelTables(frames: world.frames, kept: world.tablesKept)
  }

  func task(_ name: TaskName) -> ModelTask? {
    for task in tasks where task.name == name { return task }
    return nil
  }

  func task(_ slot: TaskSlot) -> ModelTask? { tasks.first { $0.slot == slot } }

  // MARK: Contents

  mutating func makeContent(_ bytes: [UInt8]) -> ModelContent {
    let content = ModelContent(bytes)
    content.isInTableArea = findFrame() == .tableArea
    return content
  }

  /// Adds a name to a content.
  mutating func keep(_ content: ModelContent) {
    if content.sharers == 0 { count(content, 1) }
    content.sharers += 1
    noteNames(content)
  }

  mutating func letGo(_ content: ModelContent) {
    content.sharers -= 1
    if content.sharers == 0 { count(content, -1) }
    noteNames(content)
  }

  /// Moves a content to or from the list of released contents. A newly released one is the youngest.
  mutating func noteNames(_ content: ModelContent) {
    let isReleased = content.sharers > 0 && content.sharers == content.releases.count
    guard isReleased != content.isReleased else { return }
    content.isReleased = isReleased
    if isReleased { releasedContents.append(content) } else { releasedContents.removeAll { $0 === content } }
  }

  private mutating func count(_ content: ModelContent, _ change: Int) {
    contentCount += change
    if content.isInTableArea { tableAreaContents += change }
    if content.isPlaced { placedCount += change }
  }

  /// Sets the frame of an id; nil: the id becomes unused, and its owner has one frame less.
  mutating func set(_ container: ModelContainer, _ id: UInt32, _ frame: ModelFrame?) {
    if case .content(let content) = frame { keep(content) }
    if frame != nil { forgetReleased(container, id) }
    let old = container.frames[id]
    container.frames[id] = frame
    if case .content(let content) = old { letGo(content) }
    if old != nil, frame == nil, let owner = container.owner { gaveBack(owner, 1) }
  }

  /// Gives an id with a shared content a private copy.
  mutating func makePrivate(_ container: ModelContainer, _ id: UInt32) {
    guard case .content(let content) = container.frames[id], content.sharers > 1 else { return }
    let copy = makeContent(content.bytes)
    // Finding a frame may have expired the other sharers.
    guard content.sharers > 1 else { return }
    copiesOnWrite += 1
    set(container, id, .content(copy))
  }

  // MARK: Programs

  mutating func loadImage(_ label: Int, _ program: Program) throws(CallFailure) {
    guard program.isGood else { throw .invalid }
    guard min(unclaimed, notAllocated) >= program.filePages else { throw .noMemory }
    let container = ModelContainer(owner: nil)
    var id: UInt32 = 0
    var contents: [[ModelContent]] = []
    for segment in program.segments {
      contents.append([])
      for page in 0..<segment.filePages {
        let content = makeContent(segment.page(page))
        contents[contents.count - 1].append(content)
        set(container, id, .content(content))
        id += 1
      }
    }
    images[label] = Image(program: program, contents: contents, container: container)
  }

  mutating func unloadImage(_ label: Int) throws(CallFailure) {
    guard let image = images[label] else { throw .contentGone }
    guard !tasks.contains(where: { $0.image == label }) else { throw .busy }
    empty(image.container)
    images[label] = nil
    serveRequests()
  }

  mutating func empty(_ container: ModelContainer) {
    for id in Array(container.frames.keys) { set(container, id, nil) }
    for id in Array(container.released.keys) { forgetReleased(container, id) }
    container.releasedEmpties = []
    container.isLive = false
  }
}
