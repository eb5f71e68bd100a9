// Blocks of 512 frames prepared for superpages: all zero, and backed by a huge page of the host.
//
// A block in stock stays free: its frames remain in the free runs, and any request may take them. No frame is set
// aside, nothing must be drained when frames run short, and a block counts only if all of it is still free and zero
// when it is taken. It is chosen where ordinary requests come last: at the end of the longest free run.
//
// A block does occupy memory of the host. Therefore none is prepared before the first request for a superpage, twice as
// many are prepared each time half of them are gone, and unused ones become idle frames after a while.

internal import GuestMemory

/// The stock of blocks for superpages.
struct BlockStock {
  static let framesPerBlock = PoolMemory.framesPerBlock

  /// The maximum, and the number to keep now.
  let target: Int
  private(set) var wanted = 0
  /// A block was requested since the last pass over idle frames.
  private var isInUse = false
  /// The blocks' first frames, the most recent last.
  private(set) var blocks: [FrameNumber] = []
  /// The thread that prepares blocks has been woken.
  var hasAsked = false

  init(target: Int) {
    self.target = target
    blocks.reserveCapacity(target)
  }

  /// A sixteenth of the pool, at most 64 MiB.
  static func most(frameCount: Int) -> Int { min(32, frameCount / framesPerBlock / 16) }

  /// Counts a request for a block.
  /// - Returns: whether more are to be prepared.
  mutating func noteUse() -> Bool {
    isInUse = true
    guard blocks.count * 2 < max(1, wanted), !hasAsked, target > 0 else { return false }
    wanted = min(target, max(wanted * 2, target / 4, 1))
    hasAsked = true
    return true
  }

  /// Called about once a second: halves the stock if no block was requested meanwhile.
  /// - Returns: the first frames of the blocks removed from the stock.
  mutating func shrink() -> [FrameNumber] {
    defer { isInUse = false }
    guard !isInUse, wanted > 0 || !blocks.isEmpty else { return [] }
    wanted /= 2
    let excess = blocks.prefix(max(0, blocks.count - wanted))
    blocks.removeFirst(excess.count)
    return Array(excess)
  }

  mutating func append(_ block: FrameRun) { blocks.append(block.start) }
  mutating func popLast() -> FrameRun? {
    blocks.popLast().map { FrameRun(start: $0, count: Self.framesPerBlock) }
  }
  mutating func removeAll(where isGone: (FrameNumber) -> Bool) { blocks.removeAll(where: isGone) }
}

extension FramePool {
  /// The last block of the longest free run that contains one not among `others`. Leaves out the scarce zone below 16
  /// MiB.
  func lastFreeBlock(except others: [FrameNumber]) -> FrameRun? {
    for rank in 0..<FrameZone.count - 1 {
      let zone = FrameZone(rank: rank)
      for order in stride(from: floorLog2(count), through: floorLog2(BlockStock.framesPerBlock), by: -1) {
        let list = runs.list(zone: zone, order: order)
        var next = records.first(of: list)
        while let head = next {
          next = records.next(after: head, in: list)
          var offset = 1 << order
          while offset > 0 {
            offset -= BlockStock.framesPerBlock
            let start = head.advanced(by: offset)
            if !others.contains(start) { return FrameRun(start: start, count: BlockStock.framesPerBlock) }
          }
        }
      }
    }
    return nil
  }

  /// Marks a row of dirty frames of a free block as about to be zeroed.
  /// - Returns: at most `most` frames; nil: none are dirty.
  mutating func takeDirtyRow(of block: FrameRun, most: Int) -> FrameRun? {
    let start = Int(block.start.rawValue)
    guard let first = (start..<start + block.count).first(where: { records.storage[$0].isDirty }) else { return nil }
    var last = first
    while last < start + block.count, last - first < most, records.storage[last].isDirty {
      records.storage[last].flags.remove(.dirty)
      last += 1
    }
    return FrameRun(start: FrameNumber(UInt32(first)), count: last - first)
  }

  /// Marks free frames of the run as dirty and idle, so that their memory may be given back to the host.
  mutating func noteIdle(_ run: FrameRun) {
    guard isFree(run) else { return }
    let start = Int(run.start.rawValue)
    for frame in start..<start + run.count where records.storage[frame].state != .stocked {
      records.storage[frame].flags.insert(.dirty)
    }
    idle.young.insert(chunkOf: start)
  }

  func isFreeAndZero(_ block: FrameRun) -> Bool {
    let start = Int(block.start.rawValue)
    return isFree(block) && !(start..<start + block.count).contains { records.storage[$0].isDirty }
  }
}

extension ServerState {
  /// Frames zeroed in one step, as in `zeroAhead`.
  private static let framesInOneStep = 16

  /// A block to prepare, up to the number wanted now; nil: there are enough, or no block is free.
  mutating func nextWantedBlock() -> FrameRun? {
    guard blocks.blocks.count < blocks.wanted else {
      blocks.hasAsked = false
      return nil
    }
    return nextBlock()
  }

  /// Marks the frames of unused blocks idle, so that their memory goes back to the host.
  mutating func shrinkBlockStock() {
    for start in blocks.shrink() { pool.noteIdle(FrameRun(start: start, count: BlockStock.framesPerBlock)) }
  }

  /// A block to prepare, up to the maximum; nil: there are enough, or no block is free.
  mutating func nextBlock() -> FrameRun? {
    blocks.removeAll { !pool.isFreeAndZero(FrameRun(start: $0, count: BlockStock.framesPerBlock)) }
    guard blocks.blocks.count < blocks.target else {
      blocks.hasAsked = false
      return nil
    }
    // When no free block is left, the thread is not woken again until frames come back.
    return pool.lastFreeBlock(except: blocks.blocks)
  }

  /// True: the block is in stock, or part of it was allocated meanwhile.
  mutating func zeroBlock(_ block: FrameRun) -> Bool {
    guard pool.isFree(block) else { return true }
    guard let row = pool.takeDirtyRow(of: block, most: Self.framesInOneStep) else {
      if !blocks.blocks.contains(block.start) { blocks.append(block) }
      return true
    }
    memory.zero(row)
    return false
  }

  /// Removes a block from the stock that is still free and zero. Asks for more in time.
  mutating func popBlock() -> FrameRun? {
    var block = blocks.popLast()
    while let candidate = block, !pool.isFreeAndZero(candidate) { block = blocks.popLast() }
    if blocks.noteUse() { memory.wantZeroedFrames() }
    return block
  }

  /// Takes a block of the stock out of the free runs.
  mutating func takeBlock() -> FrameRun? {
    guard let block = popBlock(), pool.takeFixed(block) else { return nil }
    return block
  }
}
