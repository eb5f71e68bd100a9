// Operations on the server as values, which can be generated, written, read and left out one by one. They do not depend
// on the server's answers: a task is named by the operation that started it, a handle by the operation that brought it.
// So any part of a list is a valid list with the same meaning, as far as possible.

package import PhysicalMemory

/// A task, by the label of the operation that started it.
package struct TaskName: Hashable, Comparable, Sendable {
  package let label: Int
  package init(_ label: Int) { self.label = label }
  package static func < (left: TaskName, right: TaskName) -> Bool { left.label < right.label }
}

/// A handle, by the label of the operation that brought it to its holder; a message brings up to four.
package struct HandleName: Hashable, Sendable {
  package let label: Int
  package let index: Int

  package init(_ label: Int, _ index: Int = 0) {
    self.label = label
    self.index = index
  }
}

/// A handle argument of a call.
package enum HandleArgument: Hashable, Sendable {
  /// The number of this handle, of its current or a former holder.
  case name(HandleName)
  case number(UInt32)
}

/// The ids of one side of a copy.
package enum IDArgument: Hashable, Sendable {
  case from(UInt32)
  /// A list written to this address before the call.
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

/// The call that a reply answers.
package enum ReplyArgument: Hashable, Sendable {
  /// The call received with the message of this operation.
  case call(Int)
  case number(UInt64)
}

/// What the holder of control writes for one slot. `garbage`: the value for the server's fields and the last one; 0:
/// they are not written.
package struct PolicyArgument: Hashable, Sendable {
  package var slot: UInt32
  package var guaranteed: UInt64
  package var extra: UInt64
  package var swapQuota: UInt64 = 0
  package var garbage: UInt64 = 0
}

/// A `struct pm_placement`, which the task writes to its memory before a placed allocation.
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

/// Number of pages that a fault of the task fills in; 0: the server decides.
package typealias Around = Int

/// What an operation does.
package enum Action: Hashable, Sendable {
  // Actions of the machine and its user.
  /// Loads this program of `Programs.all`.
  case loadImage(Int)
  case unloadImage(Int)
  case start(image: Int, guaranteed: Int, contract: Bool, extra: Bool, around: Around, keepsMappings: Bool)
  /// `pause`: how many of the following operations run while the task's end has to wait for others.
  case end(TaskName, pause: Int)
  /// Tells the task to end after this many more steps of its calls. The walk ends with the call that is stopped.
  case stop(TaskName, steps: Int)
  case pass(microseconds: UInt64)
  /// Gives the task CPU time.
  case work(TaskName, microseconds: UInt64)
  case zeroAhead(Int)
  case releaseClosedSpaces
  case takeMachineFrame
  case giveMachineFrame
  /// Unmaps a frame, chosen at random, from every task.
  case revokeSomeFrame(UInt64)
  /// Moves a content, chosen at random, to another frame.
  case moveSomeFrame(UInt64)
  /// Performs steps of a pass, continuing the last one. `block` is in frames.
  case defragment(steps: Int, block: Int)
  /// Prepares up to this many blocks for superpages.
  case readyBlocks(Int)
  /// Performs steps of gathering a region, continuing the last one. A complete region is promoted.
  case gather(steps: Int)
  /// Promotes the region of this page, if possible.
  case promote(TaskName, page: UInt64)
  case task(TaskName, Call)
}

/// A task's actions. `at`, `result` and the like are the addresses for results.
package enum Call: Hashable, Sendable {
  // Its memory: accessed by the task itself, or by the server for it.
  case load(at: UInt64, count: Int, Access)
  case store(at: UInt64, UInt32)
  case read(at: UInt64, count: Int)
  case write(at: UInt64, count: Int, UInt8)
  case check(at: UInt64, count: UInt64)

  case createContainer(result: UInt64)
  case destroyContainer(HandleArgument)
  case allocate(HandleArgument, start: UInt32, count: UInt32, at: UInt64, flags: UInt32)
  /// `in`: the address of the placement.
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
  /// Asks how many frames are demanded.
  case takeReturnRequest
  /// `ids` nil: new frames.
  case createFilled(
    HandleArgument, IDArgument?, count: UInt32, remote: HandleArgument, result: UInt64, weak: UInt64)

  case share(HandleArgument, remote: HandleArgument, result: UInt64)
  case revoke(HandleArgument)
  case lock(HandleArgument, microseconds: UInt64)
  case unlock(HandleArgument)
  case pin(HandleArgument, start: UInt32, count: UInt32, microseconds: UInt64, physical: UInt64)
  case unpin(HandleArgument, start: UInt32, count: UInt32)
  /// A device of the task starts a transfer with the frames; or a transfer ends, the one of this number among those
  /// under way.
  case beginTransfer(HandleArgument, start: UInt32, count: UInt32)
  case endTransfer(Int)

  case createEndpoint(result: UInt64)
  case call(HandleArgument, MessageArgument, at: UInt64, mayWait: Bool)
  case receive(HandleArgument, at: UInt64, mayWait: Bool)
  case reply(ReplyArgument, MessageArgument, at: UInt64)
  case replyAndReceive(HandleArgument, ReplyArgument, MessageArgument, at: UInt64, mayWait: Bool)
  /// Checks whether an answer has arrived, or frames, with which the call is repeated.
  case wake
  case stopWaiting
  case registerName(Int, at: UInt64, HandleArgument)
  case lookUpName(Int, at: UInt64, result: UInt64, mayWait: Bool)
  case drop(HandleArgument)

  case getControl(result: UInt64)
  case getPolicyBuffer(HandleArgument, at: UInt64, result: UInt64)
  /// `at`: the buffer's address. `isDirect`: the server writes for the task.
  case setPolicy(at: UInt64, PolicyArgument, isDirect: Bool)
  case policyCommit(HandleArgument)
  case defragment(HandleArgument, result: UInt64)
}

/// An action with a label, by which other operations refer to it.
package struct Operation: Hashable, Sendable {
  /// Unique within a list.
  package let label: Int
  package var action: Action

  package init(_ label: Int, _ action: Action) {
    self.label = label
    self.action = action
  }
}

/// The world in which operations are performed.
package struct World: Hashable, Sendable {
  /// Frames of the pool.
  package var frames = 256
  package var reserved = 1
  /// The most tasks at a time.
  package var tasks = 4
  /// Number of prezeroed frames to keep.
  package var stock = 16
  /// A closed space with more tables than this is freed.
  package var tablesKept = 16
  /// The deadline of demands, in microseconds.
  package var timeLimit: UInt64 = 60
  /// The most blocks kept for superpages; a pool of less than 8,192 frames has none.
  package var blocks = 0
  package var sabotage: Sabotage?

  package init() {}

  /// Whether a server of that size is possible; it needs at least 256 frames. The model's policy buffer has at most 64
  /// entries.
  package var isGood: Bool {
    (256...1 << 20).contains(frames) && (1...frames / 4).contains(reserved) && (1...64).contains(tasks)
      && (0...frames).contains(stock) && tablesKept >= 0 && (0...32).contains(blocks)
  }
}
