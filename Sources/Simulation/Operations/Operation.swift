// What can be done to the server, as values: made by chance, written down, read again, and left out one by one. Nothing
// in them depends on what the server answered: a task is named by the operation that began it, a handle by the one that
// brought it. So any part of a list is a list, and means as much of the same as it can.

package import PhysicalMemory

/// A task, by the label of the operation that began it.
package struct TaskName: Hashable, Comparable, Sendable {
  package let label: Int
  package init(_ label: Int) { self.label = label }
  package static func < (left: TaskName, right: TaskName) -> Bool { left.label < right.label }
}

/// A handle, by the label of the operation that brought it to whoever holds it; a message brings up to four.
package struct HandleName: Hashable, Sendable {
  package let label: Int
  package let index: Int

  package init(_ label: Int, _ index: Int = 0) {
    self.label = label
    self.index = index
  }
}

/// A handle in a call.
package enum HandleArgument: Hashable, Sendable {
  /// Its number, whoever holds it now or once did.
  case name(HandleName)
  case number(UInt32)
}

/// The ids of one side of a copy.
package enum IDArgument: Hashable, Sendable {
  case from(UInt32)
  /// Written to that address before the call.
  case list([UInt32], at: UInt64)
}

/// What a task writes to its memory before it sends a message.
package struct MessageArgument: Hashable, Sendable {
  package var handles: [HandleArgument]
  package var moves: UInt32

  package init(handles: [HandleArgument] = [], moves: UInt32 = 0) {
    self.handles = handles
    self.moves = moves
  }
}

/// The call that a reply names.
package enum ReplyArgument: Hashable, Sendable {
  /// The call that the task received with the message of that operation.
  case call(Int)
  case number(UInt64)
}

/// What the holder of control writes of one slot. `garbage`: to the server's fields and the last; 0: not to them.
package struct PolicyArgument: Hashable, Sendable {
  package var slot: UInt32
  package var guaranteed: UInt64
  package var extra: UInt64
  package var swapQuota: UInt64 = 0
  package var garbage: UInt64 = 0
}

/// What a task writes to its memory before it asks for frames in a place: a `struct pm_placement`.
package struct PlacementArgument: Hashable, Sendable {
  package var below: UInt64 = 0
  package var alignment: UInt64 = 0
  package var boundary: UInt64 = 0
  package var fixed: UInt64 = 0
  package var contiguous: UInt32 = 0
  package var reserved: UInt32 = 0

  var bytes: [UInt8] {
    [below, alignment, boundary, fixed].flatMap(littleEndian) + littleEndian(contiguous) + littleEndian(reserved)
  }
}

/// How many pages a fault of the task fills in; 0: the server decides.
package typealias Around = Int

package enum Action: Hashable, Sendable {
  // The machine and whoever runs it.
  /// One of `Programs.all`.
  case loadImage(Int)
  case unloadImage(Int)
  case start(image: Int, guaranteed: Int, contract: Bool, extra: Bool, around: Around, keepsMappings: Bool)
  /// `pause`: as many of the operations that follow are done while the task's end waits for others, if it has to.
  case end(TaskName, pause: Int)
  /// The task is to end from when its calls have done so many more steps: the walk ends with the call that is given up.
  case stop(TaskName, steps: Int)
  case pass(microseconds: UInt64)
  /// The task's processor does something for it for so long.
  case work(TaskName, microseconds: UInt64)
  case zeroAhead(Int)
  case releaseClosedSpaces
  case takeMachineFrame
  case giveMachineFrame
  /// Some frame is unmapped for everyone.
  case revokeSomeFrame(UInt64)
  /// Some content is moved to another frame.
  case moveSomeFrame(UInt64)
  /// So many steps of a pass, which goes on where the last one stopped; blocks are in frames.
  case defragment(steps: Int, block: Int)
  /// So many blocks, if there are, are readied for superpages.
  case readyBlocks(Int)
  /// So many steps of gathering a region, which goes on where the last one stopped; one that is done is promoted.
  case gather(steps: Int)
  /// Makes a superpage of the region of that page, if it can be one.
  case promote(TaskName, page: UInt64)
  case task(TaskName, Call)
}

/// What one task does. Results go where `at`, `result` or the like say.
package enum Call: Hashable, Sendable {
  // Its memory, by itself and by the server for it.
  case load(at: UInt64, count: Int, Access)
  case store(at: UInt64, UInt32)
  case read(at: UInt64, count: Int)
  case write(at: UInt64, count: Int, UInt8)
  case check(at: UInt64, count: UInt64)

  case createContainer(result: UInt64)
  case destroyContainer(HandleArgument)
  case allocate(HandleArgument, start: UInt32, count: UInt32, at: UInt64, flags: UInt32)
  /// `in`: where the placement is written.
  case allocatePlaced(
    HandleArgument, start: UInt32, count: UInt32, at: UInt64, flags: UInt32, PlacementArgument, in: UInt64)
  case deallocate(HandleArgument, start: UInt32, count: UInt32, at: UInt64, flags: UInt32)
  case map(HandleArgument, start: UInt32, count: UInt32, at: UInt64, flags: UInt32)
  case unmap(at: UInt64, count: UInt32)
  case mapping(at: UInt64)
  case sample(at: UInt64, count: UInt32, flags: UInt32, result: UInt64)

  case copy(HandleArgument, IDArgument, to: HandleArgument, IDArgument, count: UInt32, frameError: UInt64)
  case releaseData(HandleArgument, [UInt32], at: UInt64)
  case releasePages(HandleArgument, [UInt32], at: UInt64)
  case recoverPages(HandleArgument, [UInt32], at: UInt64, frameError: UInt64)
  case expiredPages(HandleArgument, [UInt32], at: UInt64, result: UInt64)
  /// What it is asked to give back.
  case takeReturnRequest
  /// `ids` nil: fresh frames.
  case createFilled(
    HandleArgument, IDArgument?, count: UInt32, remote: HandleArgument, result: UInt64, weak: UInt64)

  case share(HandleArgument, remote: HandleArgument, result: UInt64)
  case revoke(HandleArgument)
  case lock(HandleArgument, microseconds: UInt64)
  case unlock(HandleArgument)
  case pin(HandleArgument, start: UInt32, count: UInt32, microseconds: UInt64, physical: UInt64)
  case unpin(HandleArgument, start: UInt32, count: UInt32)
  /// A device of the task's begins a transfer with the frames; some device ends one, that of this number among those
  /// under way.
  case beginTransfer(HandleArgument, start: UInt32, count: UInt32)
  case endTransfer(Int)

  case createEndpoint(result: UInt64)
  case call(HandleArgument, MessageArgument, at: UInt64, mayWait: Bool)
  case receive(HandleArgument, at: UInt64, mayWait: Bool)
  case reply(ReplyArgument, MessageArgument, at: UInt64)
  case replyAndReceive(HandleArgument, ReplyArgument, MessageArgument, at: UInt64, mayWait: Bool)
  /// Asks whether what it waits for has come: an answer, or frames, with which the call is made again.
  case wake
  case stopWaiting
  case registerName(Int, at: UInt64, HandleArgument)
  case lookUpName(Int, at: UInt64, result: UInt64, mayWait: Bool)
  case drop(HandleArgument)

  case getControl(result: UInt64)
  case getPolicyBuffer(HandleArgument, at: UInt64, result: UInt64)
  /// `at`: where the buffer is. Direct: by the server for the task.
  case setPolicy(at: UInt64, PolicyArgument, isDirect: Bool)
  case policyCommit(HandleArgument)
  case defragment(HandleArgument, result: UInt64)
}

package struct Operation: Hashable, Sendable {
  /// Never used twice in a list.
  package let label: Int
  package var action: Action

  package init(_ label: Int, _ action: Action) {
    self.label = label
    self.action = action
  }
}

/// The world that operations are done in.
package struct World: Hashable, Sendable {
  /// In frames.
  package var frames = 256
  package var reserved = 1
  /// Tasks at a time.
  package var tasks = 4
  /// Zeroed frames to keep ahead.
  package var stock = 16
  /// A closed space with more tables than this is taken apart.
  package var tablesKept = 16
  /// Tasks that are asked for frames have so long, in microseconds.
  package var timeLimit: UInt64 = 60
  /// For superpages, to keep in stock at most; none in a pool of less than 8,192 frames.
  package var blocks = 0
  package var sabotage: Sabotage?

  package init() {}

  /// Whether there can be a server of that size; 256 frames are the least. The policy buffer does not grow beyond 64
  /// tasks in the model.
  package var isGood: Bool {
    (256...1 << 20).contains(frames) && (1...frames / 4).contains(reserved) && (1...64).contains(tasks)
      && (0...frames).contains(stock) && tablesKept >= 0 && (0...32).contains(blocks)
  }
}
