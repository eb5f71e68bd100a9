// The frame pool: hands out the physical frames of the machine and takes them back.
//
// Free frames are in aligned runs (`FreeRuns`), which serve every request. Before them stand two lists of single
// frames, so that the usual request is one list operation whatever the pool's size:
//  - loose: given back lately, at most `looseLimit`; merged with their neighbours all at once when there are more.
//    Only of the zone that ordinary requests try first, so that scarce frames are not lent out again at once.
//  - the stock: zeroed ahead by a background thread (`ZeroedStock.swift`).
// Both count as free. A request that the runs cannot serve has them emptied into the runs, and is tried again.
// Page tables have an area of their own at the pool's end (`TableArea.swift`). What is given back while somebody may
// still look at it waits, and counts as free all the same (`WaitingFrames.swift`).
//
// Every operation changes records of the frames concerned only; none allocates. Not thread safe: the server's lock
// covers it.

public import GuestMemory

public struct FramePool: ~Copyable, Sendable {
  /// In frames: 1 MiB.
  public static let leastFrameCount = 256
  /// In frames: a frame number has 32 bits, and the heads of the lists are numbered on after the last frame: 16 TiB
  /// less 1 MiB.
  public static let mostFrameCount = (1 << 32) - 256
  /// Loose frames, at most.
  static let looseLimit = 64

  /// The records of the frames. The owner of a frame in use keeps `owner` and `link` there.
  var records: FrameTable
  var runs: FreeRuns
  let loose: FrameList
  let stock: FrameList
  /// Frames from here on are kept loose when given back: those of the zone that ordinary requests try first.
  private let looseStart: UInt32
  /// Frames that the zeroing thread has.
  var zeroingCount = 0
  /// Where frames were given back that have not been given to the host yet.
  var idle: IdleChunks
  var tableArea: TableArea
  var waiting: WaitingFrames
  /// False: what is given back waits.
  var isGiving = true

  /// A pool of `frameCount` frames, from `leastFrameCount` to `mostFrameCount`. All but frame 0 are free, and all are
  /// known to be zero. The records take 16 bytes of address space a frame, and memory only as they are touched. The
  /// last `tableFrames` are for page tables.
  public init(frameCount: Int, tableFrames: Int = 0) throws(ReservationError) {
    precondition(frameCount >= Self.leastFrameCount, "a frame pool of less than 1 MiB")
    precondition(frameCount <= Self.mostFrameCount, "a frame pool of more than 16 TiB")
    precondition((0..<frameCount).contains(tableFrames), "more page tables than frames")
    // Each may fail, and a value whose parts free something may not be left half made.
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

  /// All frames of the pool, frame 0 and the reserved ones with them.
  public var count: Int { records.frameCount }

  /// Frames that a request can have, now or when they have waited. Those being zeroed are not.
  public var freeCount: Int { takeableCount + waitingCount }

  /// Frames that a request can have now: in free runs, loose, stocked, or spare.
  var takeableCount: Int { runs.freeCount + records.count(of: loose) + records.count(of: stock) + spareCount }

  /// Frames in the free runs of a zone; loose and stocked frames are in none.
  public func freeCount(in zone: FrameZone) -> Int { runs.freeCount(in: zone) }

  /// How many free runs of each order a zone has: element n counts the runs of 2^n frames. Loose and stocked frames
  /// are in none.
  public func freeRuns(zone: FrameZone) -> [Int] {
    (0...floorLog2(count)).map { records.count(of: runs.list(zone: zone, order: $0)) }
  }

  // MARK: Taking

  /// One frame, or nil if none is free. Its content is whatever it was: frames known to be zero are spared.
  public mutating func takeFrame() -> FrameNumber? {
    let taken = records.popFirst(of: loose) ?? runs.take(order: 0, in: &records) ?? records.popFirst(of: stock)
    guard let frame = taken else { return nil }
    records[frame] = FrameRecord(state: .inUse, flags: records[frame].flags)
    return frame
  }

  /// 2^order frames from a multiple of 2^order on, or nil. `isDirty` tells of each whether it must be zeroed.
  public mutating func takeBlock(order: Int) -> FrameRun? {
    takeRun(count: 1 << order, alignment: 1 << order)
  }

  /// Adjacent frames, or nil if there are none such.
  /// - count: in frames, at least 1.
  /// - alignment: in frames, a power of two: the first frame is a multiple of it.
  /// - limit: in bytes: all frames lie below this guest-physical address.
  /// When no single free run serves and the pool is fragmented, every free run of a quarter of the length or more is
  /// looked at.
  public mutating func takeRun(count: Int, alignment: Int = 1, below limit: UInt64 = .max) -> FrameRun? {
    precondition(count > 0, "a run of no frames")
    precondition(alignment > 0 && alignment & (alignment - 1) == 0, "an alignment that is not a power of two")
    guard count < self.count, alignment < self.count else { return nil }
    let end = Int(min(limit >> 12, UInt64(runs.end)))
    let request = RunRequest(count: count, alignment: alignment, end: end)
    guard let start = find(request) else { return nil }
    let run = FrameRun(start: FrameNumber(UInt32(start)), count: count)
    takeFree(run)
    records.setState(of: run, to: .inUse)
    return run
  }

  /// What `takeRun` would take, if it is in one free run that is easily found: for who has other means. The cost does
  /// not grow with the pool.
  func findEasyRun(_ request: RunRequest) -> FrameRun? {
    runs.find(request, most: 16, in: records).map { FrameRun(start: FrameNumber(UInt32($0)), count: request.count) }
  }

  private mutating func find(_ request: RunRequest) -> Int? {
    if let start = runs.find(request, in: records) { return start }
    if drainStock() > 0, let start = runs.find(request, in: records) { return start }
    // An aligned power of two is in one run or nowhere.
    if request.count == request.alignment { return nil }
    return runs.findAcrossRuns(request, in: records)
  }

  /// Exactly these frames. False, and nothing changed, if any of them is not free or not in the pool.
  public mutating func takeFixed(_ run: FrameRun) -> Bool {
    guard isFree(run) else { return false }
    takeFree(run)
    records.setState(of: run, to: .inUse)
    return true
  }

  /// Sets frames aside for good. All must be free: this is for the start.
  public mutating func reserve(_ run: FrameRun) {
    precondition(isFree(run), "reserving frames that are not free")
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

  /// Takes free frames off all lists; the caller sets their state.
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
        guard let free = runs.freeRun(containing: index, in: records) else { preconditionFailure("not a free frame") }
        index = runs.carve(head: free.start, from: index, to: end, in: &records)
      }
    }
  }

  // MARK: Giving back

  /// Gives one frame back. It must be in use; its content counts as not zero from now on. It waits if others do.
  public mutating func give(_ frame: FrameNumber) {
    precondition(Int(frame.rawValue) < count, "a frame beyond the pool")
    precondition(records[frame].state.isTaken, "giving back a frame that is not in use")
    guard isGiving else { return wait(frame, flags: .dirty) }
    giveNow(frame)
  }

  /// The same for a frame that nobody can be looking at.
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

  /// Gives adjacent frames back, all in use, wherever they were taken. With `contentIsZero` they are known to be zero:
  /// never written, or their memory dropped since; and nobody looks at them.
  public mutating func give(_ run: FrameRun, contentIsZero: Bool = false) {
    if run.count == 1, !contentIsZero { return give(run.start) }
    guard isGiving || contentIsZero else {
      for offset in 0..<run.count { give(run.start.advanced(by: offset)) }
      return
    }
    let start = Int(run.start.rawValue)
    precondition(run.count > 0 && run.count <= count - start, "frames beyond the pool")
    if start + run.count > runs.end {
      for offset in 0..<run.count { give(run.start.advanced(by: offset)) }
      return
    }
    let flags: FrameFlags = contentIsZero ? [] : .dirty
    for index in start..<start + run.count {
      precondition(records.storage[index].state.isTaken, "giving back a frame that is not in use")
      records.storage[index] = FrameRecord(flags: flags)
      if !contentIsZero { idle.young.insert(chunkOf: index) }
    }
    runs.release(from: start, to: start + run.count, in: &records)
  }

  /// The content of a frame just taken is not known to be zero.
  public func isDirty(_ frame: FrameNumber) -> Bool { records[frame].isDirty }

  /// Puts the loose frames and the zeroed stock into the free runs, merged. What is known of their content stays known.
  /// Returns how many frames that were.
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
