// The records of the physical frames: 16 bytes and one state each.
//
// The life of a frame, and the list that holds it:
//  1. `interior`   free, inside a larger free run whose first frame represents it. On no list. All bits zero, as every
//     record starts out: a pool of any size is set up by touching its first frames only.
//  2. `freeHead`   free, the first frame of a free run of 2^order frames. On the list of its zone and order.
//  3. `loose`      free, freed recently and not merged with its neighbours yet. On the loose list.
//  4. `zeroing`    held by the prezeroing thread. On no list: the thread's batch names it.
//  5. `stocked`    free and known to be zero. On the stock's list.
//  6. `inUse`      holds a content, named by `owner`. On no list here; `link` belongs to the content.
//  7. `table`      a page table of the address space `owner`. On no list here.
//  8. `isolated` taken for a placement under way, and charged; `owner` is its task. On no list here.
//  9. `reserved`   never allocated: frame 0, the stub's frames. On no list, permanently.
// 10. `spare`      free, in the area for page tables (TableArea.swift). On that list, or untouched since the start and
// then all bits zero.
// 11. `waiting`    freed, and not allocatable before the grace period is over (GracePeriod.swift). On that period's
// list.
//
//   interior, freeHead → inUse, table, isolated → loose or interior, freeHead     (allocated, freed)
//                                      inUse, table, isolated → waiting → the same    (freed during a grace period)
//   interior, freeHead → zeroing → stocked → inUse or interior, freeHead             (prezeroed, allocated or drained)

internal import GuestMemory

/// The state of a frame; see the list above.
enum FrameState: UInt8, CaseIterable {
  case interior = 0
  case freeHead
  case loose
  case zeroing
  case stocked
  case inUse
  case table
  case isolated
  case reserved
  case spare
  case waiting

  /// Whether the frame is allocated, so that it may be freed.
  var isTaken: Bool { self == .inUse || self == .table || self == .isolated }
}

/// Properties of a frame besides its state.
struct FrameFlags: OptionSet, BitwiseCopyable {
  let rawValue: UInt16
  /// The content may be nonzero. A frame that was never allocated is a hole of the memfd and reads zero.
  static let dirty = FrameFlags(rawValue: 1 << 0)
  /// In use and pinned: neither moved nor taken.
  static let pinned = FrameFlags(rawValue: 1 << 1)
  /// In use and placed: not moved for the lifetime of the content.
  static let placed = FrameFlags(rawValue: 1 << 2)
}

/// 16 bytes a frame. All bits zero is a frame inside a free run, with zero content.
struct FrameRecord: BitwiseCopyable {
  private var rawState: UInt8 = 0
  /// In a `freeHead`: the run has 2^order frames.
  var order: UInt8 = 0
  var flags: FrameFlags = []
  /// The content, or the address space of a page table; in a list's head, the number of frames on the list.
  var owner: UInt32 = 0
  /// Free and on a list: the neighbours. In use: the content's reverse map.
  var link: UInt64 = 0

  init(state: FrameState = .interior, order: UInt8 = 0, flags: FrameFlags = []) {
    self.rawState = state.rawValue
    self.order = order
    self.flags = flags
  }

  var state: FrameState {
    get {
      guard let state = FrameState(rawValue: rawState) else { preconditionFailure("a frame in an unknown state") }
      return state
    }
    set { rawState = newValue.rawValue }
  }

  var isDirty: Bool { flags.contains(.dirty) }

  func isFreeHead(order: Int) -> Bool {
    rawState == FrameState.freeHead.rawValue && self.order == UInt8(truncatingIfNeeded: order)
  }

  /// The next frame on its list.
  var next: UInt32 {
    get { UInt32(truncatingIfNeeded: link) }
    set { link = (link & 0xFFFF_FFFF_0000_0000) | UInt64(newValue) }
  }

  /// The previous frame on its list.
  var previous: UInt32 {
    get { UInt32(truncatingIfNeeded: link >> 32) }
    set { link = (link & 0x0000_0000_FFFF_FFFF) | (UInt64(newValue) << 32) }
  }
}

/// The records of all frames, followed by the heads of the lists (`FrameList`).
struct FrameTable: ~Copyable, Sendable {
  let frameCount: Int
  var storage: SparseArray<FrameRecord>

  init(frameCount: Int, listCount: Int) throws(ReservationError) {
    precondition(frameCount + listCount <= 1 << 32, "more frames than frame numbers")
    self.frameCount = frameCount
    self.storage = try SparseArray(count: frameCount + listCount)
    for index in frameCount..<frameCount + listCount {
      storage[index].next = UInt32(index)
      storage[index].previous = UInt32(index)
    }
  }

  subscript(frame: FrameNumber) -> FrameRecord {
    @inline(__always)
    _read { yield storage[Int(frame.rawValue)] }
    @inline(__always)
    _modify { yield &storage[Int(frame.rawValue)] }
  }

  /// Moves the frames of a run into a state, without an owner and on no list. Keeps track of which are zero.
  mutating func setState(of run: FrameRun, to state: FrameState) {
    for index in Int(run.start.rawValue)..<Int(run.start.rawValue) + run.count {
      storage[index] = FrameRecord(state: state, flags: storage[index].flags)
    }
  }
}
