// The frame pool: allocates and frees the physical frames of the machine.
//
// Free frames are in aligned runs (`FreeRuns`), which can serve every request. Two lists of single frames come first,
// so that the usual request is one list operation, independently of the pool's size:
//  - loose: freed recently, at most `looseLimit`; merged with their neighbours all at once when there are more. Only
//    frames of the zone that ordinary requests try first, so that scarce frames are not reused at once.
//  - the stock: prezeroed by a background thread (`ZeroedStock.swift`).
// Both count as free. If the runs cannot serve a request, both are drained into the runs and it is retried. Page tables
// have an area of their own at the pool's end (`TableArea.swift`). A frame freed while a vCPU may still access it waits
// for a grace period and counts as free meanwhile (`WaitingFrames.swift`).
//
// Every operation changes only the records of the frames concerned, and none allocates. Not thread safe: the server's
// lock protects it.

public import GuestMemory

/// The physical frames of a machine.
public struct FramePool: ~Copyable, Sendable {
  /// The minimum size in frames: 1 MiB.
  public static let leastFrameCount = 256
  /// The maximum size in frames: 16 TiB less 1 MiB. A frame number has 32 bits, and the list heads are numbered after
  /// the last frame.
  public static let mostFrameCount = (1 << 32) - 256
  /// The maximum number of loose frames.
  static let looseLimit = 64

  /// The records of the frames. The owner of a frame in use may use `owner` and `link`.
  var records: FrameTable
  var runs: FreeRuns
  let loose: FrameList
  let stock: FrameList
  /// Freed frames from here on go to the loose list: those of the zone that ordinary requests try first.
  private let looseStart: UInt32
  /// Frames held by the zeroing thread.
  var zeroingCount = 0
  /// Where freed frames hold memory that was not given back to the host yet.
  var idle: IdleChunks
  var tableArea: TableArea
  var waiting: WaitingFrames
  /// False: freed frames wait for a grace period.
  var isGiving = true

  /// Creates a pool whose frames are all free and zero, except frame 0. The records take 16 bytes of address space a
  /// frame, backed by memory once touched.
  /// - Parameters:
  ///   - frameCount: the size in frames, from `leastFrameCount` to `mostFrameCount`.
  ///   - tableFrames: the number of frames at the end that are for page tables.
  /// - Throws: `ReservationError` when there is no address space for the records.
  public init(frameCount: Int, tableFrames: Int = 0) throws(ReservationError) {
    precondition(frameCount >= Self.leastFrameCount, "a frame pool smaller than 1 MiB")
    precondition(frameCount <= Self.mostFrameCount, "a frame pool larger than 16 TiB")
    precondition((0..<frameCount).contains(tableFrames), "more page tables than frames")
    // Construct every fallible part first: a partly initialized value cannot free its parts.
    let table = try FrameTable(frameCount: frameCount, listCount: FreeRuns.listCount + 5)
    let idle = try IdleChunks(frameCount: frameCount)
    records = table
    self.idle = idle
    runs = FreeRuns(frameCount: frameCount, end: frameCount - tableFrames)
    loose = FrameList(head: UInt32(frameCount + FreeRuns.listCount))
    stock = FrameList(head: UInt32(frameCount + FreeRuns.listCount + 1))
    tableArea = TableArea(
      frames: frameCount - tableFrames..<frameCount, spare: FrameList(head: UInt32(frameCount + FreeRuns.listCount + 2))
    )
    waiting = WaitingFrames(firstHead: UInt32(frameCount + FreeRuns.listCount + 3))
    looseStart = FrameZone(of: FrameNumber(UInt32(runs.end - 1))).start.rawValue
    records.setState(of: FrameRun(start: FrameNumber(0), count: 1), to: .reserved)
    runs.release(from: 1, to: runs.end, in: &records)
  }

  // MARK: Figures

  /// All frames, including frame 0 and reserved frames.
  public var count: Int { records.frameCount }

  /// Frames that a request can have, now or after a grace period; not those being zeroed.
  public var freeCount: Int { takeableCount + waitingCount }

  /// Frames that a request can have now: in free runs, loose, stocked, or spare.
  var takeableCount: Int { runs.freeCount + records.count(of: loose) + records.count(of: stock) + spareCount }

  /// Frames in the free runs of a zone. Loose and stocked frames are in no run.
  public func freeCount(in zone: FrameZone) -> Int { runs.freeCount(in: zone) }

  /// The number of free runs of each order in a zone: element n counts the runs of 2^n frames. Loose and stocked frames
  /// are in no run.
  public func freeRuns(zone: FrameZone) -> [Int] {
    (0...floorLog2(count)).map { records.count(of: runs.list(zone: zone, order: $0)) }
  }

  // MARK: Taking

  /// Takes one frame; nil when none is free. The content is undefined: frames known to be zero are taken last.
  public mutating func takeFrame() -> FrameNumber? {
    let taken = records.popFirst(of: loose) ?? runs.take(order: 0, in: &records) ?? records.popFirst(of: stock)
    guard let frame = taken else { return nil }
    records[frame] = FrameRecord(state: .inUse, flags: records[frame].flags)
    return frame
  }

  /// Takes 2^order frames aligned to 2^order; nil when there are none. `isDirty` tells which of them must be zeroed.
  public mutating func takeBlock(order: Int) -> FrameRun? {
    takeRun(count: 1 << order, alignment: 1 << order)
  }

  /// Takes adjacent frames; nil when there are none. If no single free run serves and the pool is fragmented, visits
  /// every free run of at least a quarter of the length.
  /// - Parameters:
  ///   - count: in frames, at least 1.
  ///   - alignment: of the first frame, in frames; a power of two.
  ///   - limit: in bytes: all frames are below this guest-physical address.
  public mutating func takeRun(count: Int, alignment: Int = 1, below limit: UInt64 = .max) -> FrameRun? {
    precondition(count > 0, "an empty run")
    precondition(alignment > 0 && alignment & (alignment - 1) == 0, "alignment is not a power of two")
    guard count < self.count, alignment < self.count else { return nil }
    let end = Int(min(limit >> 12, UInt64(runs.end)))
    let request = RunRequest(count: count, alignment: alignment, end: end)
    guard let start = find(request) else { return nil }
    let run = FrameRun(start: FrameNumber(UInt32(start)), count: count)
    takeFree(run)
    records.setState(of: run, to: .inUse)
    return run
  }

  /// The run that `takeRun` would take, if one free run serves and is found quickly: for callers with a fallback. The
  /// cost does not grow with the pool.
  func findEasyRun(_ request: RunRequest) -> FrameRun? {
    runs.find(request, most: 16, in: records).map { FrameRun(start: FrameNumber(UInt32($0)), count: request.count) }
  }

  private mutating func find(_ request: RunRequest) -> Int? {
    if let start = runs.find(request, in: records) { return start }
    if drainStock() > 0, let start = runs.find(request, in: records) { return start }
    // An aligned power of two is within one run or does not exist.
    if request.count == request.alignment { return nil }
    return runs.findAcrossRuns(request, in: records)
  }

  /// Takes exactly these frames. False, with nothing changed, if one of them is not free or not in the pool.
  public mutating func takeFixed(_ run: FrameRun) -> Bool {
    guard isFree(run) else { return false }
    takeFree(run)
    records.setState(of: run, to: .inUse)
    return true
  }

  /// Reserves frames permanently. All must be free: call it at the start.
  public mutating func reserve(_ run: FrameRun) {
    precondition(isFree(run), "frames to reserve are not free")
    takeFree(run)
    records.setState(of: run, to: .reserved)
  }

  func isFree(_ run: FrameRun) -> Bool {
    var index = Int(run.start.rawValue)
    guard run.count > 0, run.count <= runs.end - index else { return false }
    let end = index + run.count
    while index < end {
      let state = records[FrameNumber(UInt32(index))].state
      if state == .loose || state == .stocked {
        index += 1
      } else if let free = runs.freeRun(containing: index, in: records) {
        index = Int(free.start.rawValue) + free.count
      } else {
        return false
      }
    }
    return true
  }

  /// Removes free frames from all lists. The caller sets their state.
  mutating func takeFree(_ run: FrameRun) {
    var index = Int(run.start.rawValue)
    let end = index + run.count
    while index < end {
      let frame = FrameNumber(UInt32(index))
      switch records[frame].state {
      case .loose:
        records.remove(frame, from: loose)
        index += 1
      case .stocked:
        records.remove(frame, from: stock)
        index += 1
      default:
        guard let free = runs.freeRun(containing: index, in: records) else { preconditionFailure("frame is not free") }
        index = runs.carve(head: free.start, from: index, to: end, in: &records)
      }
    }
  }

  // MARK: Giving back

  /// Frees one frame, which must be in use. Its content counts as not zero. During a grace period it waits.
  public mutating func give(_ frame: FrameNumber) {
    precondition(Int(frame.rawValue) < count, "frame is beyond the pool")
    precondition(records[frame].state.isTaken, "frame to free is not in use")
    guard isGiving else { return wait(frame, flags: .dirty) }
    giveNow(frame)
  }

  /// Frees a frame that no vCPU can access any more.
  mutating func giveNow(_ frame: FrameNumber) {
    if Int(frame.rawValue) >= runs.end { return giveSpare(frame) }
    idle.young.insert(chunkOf: Int(frame.rawValue))
    if frame.rawValue < looseStart {
      records[frame] = FrameRecord(flags: .dirty)
      return runs.release(frame, order: 0, in: &records)
    }
    if records.count(of: loose) == Self.looseLimit { mergeLoose() }
    records[frame] = FrameRecord(state: .loose, flags: .dirty)
    records.push(frame, onto: loose)
  }

  /// Frees adjacent frames, all in use, however they were taken.
  /// - Parameters:
  ///   - run: the frames.
  ///   - contentIsZero: they are known to be zero (never written, or their memory was dropped), and no vCPU can access
  ///     them.
  public mutating func give(_ run: FrameRun, contentIsZero: Bool = false) {
    if run.count == 1, !contentIsZero { return give(run.start) }
    guard isGiving || contentIsZero else {
      for offset in 0..<run.count { give(run.start.advanced(by: offset)) }
      return
    }
    let start = Int(run.start.rawValue)
    precondition(run.count > 0 && run.count <= count - start, "frames are beyond the pool")
    if start + run.count > runs.end {
      for offset in 0..<run.count { give(run.start.advanced(by: offset)) }
      return
    }
    let flags: FrameFlags = contentIsZero ? [] : .dirty
    for index in start..<start + run.count {
      precondition(records.storage[index].state.isTaken, "frame to free is not in use")
      records.storage[index] = FrameRecord(flags: flags)
      if !contentIsZero { idle.young.insert(chunkOf: index) }
    }
    runs.release(from: start, to: start + run.count, in: &records)
  }

  /// Whether the content of a frame just taken may be nonzero.
  public func isDirty(_ frame: FrameNumber) -> Bool { records[frame].isDirty }

  /// Moves the loose frames and the zeroed stock into the free runs and merges them. Keeps track of which are zero.
  /// - Returns: the number of frames moved.
  @discardableResult
  public mutating func drainStock() -> Int {
    let count = records.count(of: loose) + records.count(of: stock)
    mergeLoose()
    while let frame = records.popFirst(of: stock) {
      records[frame] = FrameRecord(flags: records[frame].flags)
      runs.release(frame, order: 0, in: &records)
    }
    return count
  }

  mutating func mergeLoose() {
    while let frame = records.popFirst(of: loose) {
      records[frame] = FrameRecord(flags: records[frame].flags)
      runs.release(frame, order: 0, in: &records)
    }
  }
}
