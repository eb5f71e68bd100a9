// The table of pinned frames, indexed three ways, so that no operation scans all of them:
//
//      by frame ──▶ the record itself      may this device access it?             one load
//      by task  ──▶ a list of frames       which frames has it pinned?            when the task ends
//      by time  ──▶ a heap of frames       which pins have expired?               before anything that depends on pins
//
// Everything is in the records and in an array of frame numbers for the heap: a pin allocates nothing.

internal import GuestMemory

/// The holder and the deadline of a pin.
struct Pin: Equatable, BitwiseCopyable {
  /// Nanoseconds of the machine's clock.
  let deadline: UInt64
  /// The task that pinned it; the server if that task has ended.
  var task: TaskSlot
  /// It has ended and stays only because of a transfer under way.
  var isEnded = false

  init(task: TaskSlot, deadline: UInt64) {
    self.task = task
    self.deadline = deadline
  }

  /// Whether the task's devices may access the frame now.
  @inline(__always)
  func isGood(for task: TaskSlot, _ now: UInt64) -> Bool { self.task == task && !isEnded && deadline > now }
}

/// A frame's pin. All bits zero is no pin, since a deadline is never 0.
struct PinnedFrame: BitwiseCopyable {
  fileprivate(set) var place: ContainerFrame
  fileprivate(set) var pin: Pin
  /// Transfers under way on the frame.
  fileprivate(set) var transfers: UInt32 = 0
  /// Neighbours in the task's list; 0: none.
  fileprivate var previous: UInt32 = 0
  fileprivate var next: UInt32 = 0
  /// The index in the heap, from 1; 0: not in the heap, since its deadline does not matter any more.
  fileprivate var heapIndex: UInt32 = 0

  fileprivate static var none: PinnedFrame {
    PinnedFrame(place: ContainerFrame(container: ContainerSlot(0), id: 0), pin: Pin(task: TaskSlot(0), deadline: 0))
  }
  var isPinned: Bool { pin.deadline > 0 }
}

/// All pinned frames.
struct PinTable: ~Copyable {
  private var frames: SparseArray<PinnedFrame>
  /// Frames with a pin that has not ended, from index 1 on; no deadline is before that of index / 2.
  private var heap: SparseArray<UInt32>
  private var heapCount = 0
  /// The first frame of each task's list; 0: none.
  private var firstOfTask: SparseArray<UInt32>
  /// Pinned frames.
  private(set) var count = 0
  /// Frames of all transfers under way; a frame counts once for each transfer.
  private(set) var transfers = 0

  init(frameCount: Int, taskCapacity: Int) throws(ReservationError) {
    // Construct every fallible part first: a partly initialized value cannot free its parts.
    let frames = try SparseArray<PinnedFrame>(count: frameCount)
    let heap = try SparseArray<UInt32>(count: frameCount + 1)
    firstOfTask = try SparseArray<UInt32>(count: taskCapacity)
    self.frames = frames
    self.heap = heap
  }

  subscript(frame: FrameNumber) -> PinnedFrame {
    @inline(__always) get { frames[Int(frame.rawValue)] }
  }

  /// False for numbers beyond the pool.
  @inline(__always)
  func contains(_ frame: FrameNumber) -> Bool { Int(frame.rawValue) < frames.count }

  /// Pins a frame, or changes its pin.
  mutating func set(_ frame: FrameNumber, _ place: ContainerFrame, _ pin: Pin) {
    let index = frame.rawValue
    if frames[Int(index)].isPinned { leave(index) } else { count += 1 }
    frames[Int(index)].place = place
    frames[Int(index)].pin = pin
    if pin.task != .server { join(index, pin.task) }
    if !pin.isEnded { push(index) }
  }

  mutating func remove(_ frame: FrameNumber) {
    precondition(frames[Int(frame.rawValue)].transfers == 0, "a pin is removed during a transfer")
    leave(frame.rawValue)
    frames[Int(frame.rawValue)] = .none
    count -= 1
  }

  mutating func beginTransfer(_ frame: FrameNumber) {
    frames[Int(frame.rawValue)].transfers += 1
    transfers += 1
  }

  mutating func endTransfer(_ frame: FrameNumber) {
    precondition(frames[Int(frame.rawValue)].transfers > 0, "no transfer is under way")
    frames[Int(frame.rawValue)].transfers -= 1
    transfers -= 1
  }

  /// A frame pinned by the task.
  func first(of task: TaskSlot) -> FrameNumber? {
    let first = firstOfTask[Int(task.rawValue)]
    return first == 0 ? nil : FrameNumber(first)
  }

  /// The next frame pinned by the task.
  func next(of task: TaskSlot, after frame: FrameNumber) -> FrameNumber? {
    let next = frames[Int(frame.rawValue)].next
    return next == 0 ? nil : FrameNumber(next)
  }

  /// A frame whose pin has expired.
  func firstDue(_ now: UInt64) -> FrameNumber? {
    guard heapCount > 0, deadline(1) <= now else { return nil }
    return FrameNumber(heap[1])
  }

  // MARK: Lists

  private mutating func join(_ index: UInt32, _ task: TaskSlot) {
    let next = firstOfTask[Int(task.rawValue)]
    frames[Int(index)].previous = 0
    frames[Int(index)].next = next
    if next != 0 { frames[Int(next)].previous = index }
    firstOfTask[Int(task.rawValue)] = index
  }

  /// Removes a pinned frame from its list and the heap.
  private mutating func leave(_ index: UInt32) {
    let frame = frames[Int(index)]
    if frame.pin.task != .server {
      if frame.next != 0 { frames[Int(frame.next)].previous = frame.previous }
      if frame.previous != 0 {
        frames[Int(frame.previous)].next = frame.next
      } else {
        firstOfTask[Int(frame.pin.task.rawValue)] = frame.next
      }
    }
    if frame.heapIndex != 0 { removeFromHeap(Int(frame.heapIndex)) }
    frames[Int(index)].previous = 0
    frames[Int(index)].next = 0
  }

  // MARK: The heap

  @inline(__always)
  private func deadline(_ index: Int) -> UInt64 { frames[Int(heap[index])].pin.deadline }

  @inline(__always)
  private mutating func put(_ frame: UInt32, at index: Int) {
    heap[index] = frame
    frames[Int(frame)].heapIndex = UInt32(index)
  }

  private mutating func push(_ frame: UInt32) {
    heapCount += 1
    put(frame, at: heapCount)
    siftUp(heapCount)
  }

  private mutating func removeFromHeap(_ index: Int) {
    frames[Int(heap[index])].heapIndex = 0
    let last = heap[heapCount]
    heapCount -= 1
    guard index <= heapCount else { return }
    put(last, at: index)
    siftUp(index)
    siftDown(Int(frames[Int(last)].heapIndex))
  }

  private mutating func siftUp(_ start: Int) {
    var index = start
    let frame = heap[index]
    while index > 1, deadline(index / 2) > frames[Int(frame)].pin.deadline {
      put(heap[index / 2], at: index)
      index /= 2
    }
    put(frame, at: index)
  }

  private mutating func siftDown(_ start: Int) {
    var index = start
    let frame = heap[index]
    while 2 * index <= heapCount {
      var child = 2 * index
      if child < heapCount, deadline(child + 1) < deadline(child) { child += 1 }
      guard deadline(child) < frames[Int(frame)].pin.deadline else { break }
      put(heap[child], at: index)
      index = child
    }
    put(frame, at: index)
  }

  /// For checks: whether lists and heap agree with the records. Walks all pinned frames.
  func isConsistent() -> Bool {
    for index in stride(from: 2, through: heapCount, by: 1) where deadline(index / 2) > deadline(index) { return false }
    for index in stride(from: 1, through: heapCount, by: 1) {
      let frame = frames[Int(heap[index])]
      guard frame.isPinned, !frame.pin.isEnded, Int(frame.heapIndex) == index else { return false }
    }
    var listed = 0
    for task in 0..<firstOfTask.count {
      var previous: UInt32 = 0
      var next = firstOfTask[task]
      while next != 0 {
        let frame = frames[Int(next)]
        guard frame.isPinned, frame.pin.task.rawValue == UInt32(task), frame.previous == previous else { return false }
        listed += 1
        (previous, next) = (next, frame.next)
      }
    }
    return listed <= count && heapCount <= count
  }
}
