// What the server knows of each physical frame: one record of 16 bytes, and a state each frame is in exactly one of.
//
// The life of a frame, and the list that holds it:
//  1. `interior`   free, inside a larger free run whose first frame stands for it. On no list. All bits zero: so
//                  begins every record, and a pool of any size is set up by touching the first frames only.
//  2. `freeHead`   free, the first frame of a free run of 2^order frames. On the list of its zone and order.
//  3. `loose`      free, given back lately and not merged with its neighbours yet. On the loose list.
//  4. `zeroing`    taken by the thread that zeroes ahead. On no list: the thread's batch names it.
//  5. `stocked`    free and known to be zero. On the stock's list.
//  6. `inUse`      holds a content, named by `owner`. On no list here; `link` is the content's.
//  7. `table`      a page table of the address space `owner`. On no list here.
//  8. `quarantined` taken for a placement that is being made, and charged for; `owner` is its task. On no list here.
//  9. `reserved`   never handed out: frame 0, the stub's frames. On no list, for good.
// 10. `spare`      free, in the area for page tables (TableArea.swift). On that list, or not touched since the start
//                  and then all bits zero.
// 11. `waiting`    given back, and not free before the grace period is over (GracePeriod.swift). On the list of that
//                  period.
//
//   interior, freeHead → inUse, table, quarantined → loose or interior, freeHead     (taken, given back)
//                                      inUse, table, quarantined → waiting → the same    (given back while others may
//                                      look)
//   interior, freeHead → zeroing → stocked → inUse or interior, freeHead            (zeroed ahead, taken or drained)

internal import GuestMemory

enum FrameState: UInt8, CaseIterable {
  case interior = 0
  case freeHead
  case loose
  case zeroing
  case stocked
  case inUse
  case table
  case quarantined
  case reserved
  case spare
  case waiting

  /// Handed out, so that it may be given back.
  var isTaken: Bool { self == .inUse || self == .table || self == .quarantined }
}

struct FrameFlags: OptionSet, BitwiseCopyable {
  let rawValue: UInt16
  /// The content is not known to be zero. A frame that was never handed out is a hole of the memfd and reads zero.
  static let dirty = FrameFlags(rawValue: 1 << 0)
  /// In use and pinned: the frame is neither moved nor taken.
  static let pinned = FrameFlags(rawValue: 1 << 1)
  /// In use and where its owner asked for it: not moved as long as the content lives.
  static let placed = FrameFlags(rawValue: 1 << 2)
}

/// 16 bytes a frame; all bits zero is a frame inside a free run with zero content.
struct FrameRecord: BitwiseCopyable {
  private var rawState: UInt8 = 0
  /// Of a `freeHead`: the run has 2^order frames.
  var order: UInt8 = 0
  var flags: FrameFlags = []
  /// The content, or the address space of a page table; of a list's head, how many frames are on the list.
  var owner: UInt32 = 0
  /// Free and on a list: the neighbours there. In use: the content's reverse map.
  var link: UInt64 = 0

  init(state: FrameState = .interior, order: UInt8 = 0, flags: FrameFlags = []) {
    self.rawState = state.rawValue
    self.order = order
    self.flags = flags
  }

  var state: FrameState {
    get {
      guard let state = FrameState(rawValue: rawState) else { preconditionFailure("a frame in no known state") }
      return state
    }
    set { rawState = newValue.rawValue }
  }

  var isDirty: Bool { flags.contains(.dirty) }

  func isFreeHead(order: Int) -> Bool {
    rawState == FrameState.freeHead.rawValue && self.order == UInt8(truncatingIfNeeded: order)
  }

  /// The next frame of the list this one is on.
  var next: UInt32 {
    get { UInt32(truncatingIfNeeded: link) }
    set { link = (link & 0xFFFF_FFFF_0000_0000) | UInt64(newValue) }
  }

  /// The frame before this one on its list.
  var previous: UInt32 {
    get { UInt32(truncatingIfNeeded: link >> 32) }
    set { link = (link & 0x0000_0000_FFFF_FFFF) | (UInt64(newValue) << 32) }
  }
}

/// The records of all frames, and behind the last frame's the heads of the lists (`FrameList`).
struct FrameTable: ~Copyable, Sendable {
  let frameCount: Int
  var storage: SparseArray<FrameRecord>

  init(frameCount: Int, listCount: Int) throws(ReservationError) {
    precondition(frameCount + listCount <= 1 << 32, "more frames than a frame number can tell apart")
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

  /// Moves the frames of a run into a state, owned by nobody and on no list. What is known of their content stays.
  mutating func setState(of run: FrameRun, to state: FrameState) {
    for index in Int(run.start.rawValue)..<Int(run.start.rawValue) + run.count {
      storage[index] = FrameRecord(state: state, flags: storage[index].flags)
    }
  }
}
