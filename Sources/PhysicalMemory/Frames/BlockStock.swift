// Blocks of 512 frames readied for superpages: a huge page of the host behind each, all of it zero.
//
// A block in stock is free all the same: its frames stay in the free runs, and whoever needs frames takes them. So no
// frame is set aside, nothing must be drained when frames run short, and a block counts only if all of it is free and zero
// when it is taken. It is chosen where ordinary requests come last: at the end of the longest free run.
//
// The host's memory behind a block is used all the same. So none is readied before somebody wants a superpage; each time
// that half of them are gone twice as many are readied; and those that nobody wants for a while become idle frames.

internal import GuestMemory

struct BlockStock {
  static let framesPerBlock = PoolMemory.framesPerBlock

  /// How many to keep at most, and now.
  let target: Int
  private(set) var wanted = 0
  /// One was asked for since the last pass over idle frames.
  private var isInUse = false
  /// First frames, the block readied last at the end.
  private(set) var blocks: [FrameNumber] = []
  /// The thread that readies frames has been woken for more.
  var hasAsked = false

  init(target: Int) {
    self.target = target
    blocks.reserveCapacity(target)
  }

  /// A sixteenth of the pool, and 64 MiB at most.
  static func most(frameCount: Int) -> Int { min(32, frameCount / framesPerBlock / 16) }

  /// Somebody asks for one.
  /// - Returns: whether more are to be readied.
  mutating func noteUse() -> Bool {
    isInUse = true
    guard blocks.count * 2 < max(1, wanted), !hasAsked, target > 0 else { return false }
    wanted = min(target, max(wanted * 2, target / 4, 1))
    hasAsked = true
    return true
  }

  /// A second or so has passed: halves the stock, if nobody asked for any.
  /// - Returns: the first frames of those that are in stock no more, in `blocks` before.
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
  /// The last block of the longest free run that has one which is not among `others`. The scarce frames below 16 MiB are
  /// not for this.
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

  /// Takes note that some of a free block's frames, which are not known to be zero, are about to be cleared.
  /// - Returns: a row of at most `most` of them; nil: there is none.
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

  /// Free frames of the run hold something from now on, as far as the pool knows, and may be given back to the host.
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
  /// Frames cleared in one step, as many as `zeroAhead` clears.
  private static let framesInOneStep = 16

  /// A block to be readied, as many as are wanted now; nil: there are enough, or there is none.
  mutating func nextWantedBlock() -> FrameRun? {
    guard blocks.blocks.count < blocks.wanted else {
      blocks.hasAsked = false
      return nil
    }
    return nextBlock()
  }

  /// The frames of blocks that nobody wants count as given back just now, so that their memory goes as theirs does.
  mutating func shrinkBlockStock() {
    for start in blocks.shrink() { pool.noteIdle(FrameRun(start: start, count: BlockStock.framesPerBlock)) }
  }

  /// A block to be readied, as many as there may be; nil: there are enough, or there is none.
  mutating func nextBlock() -> FrameRun? {
    blocks.removeAll { !pool.isFreeAndZero(FrameRun(start: $0, count: BlockStock.framesPerBlock)) }
    guard blocks.blocks.count < blocks.target else {
      blocks.hasAsked = false
      return nil
    }
    // With none left nobody asks again until frames come back.
    return pool.lastFreeBlock(except: blocks.blocks)
  }

  /// True: the block is in stock, or part of it is in use by now.
  mutating func zeroBlock(_ block: FrameRun) -> Bool {
    guard pool.isFree(block) else { return true }
    guard let row = pool.takeDirtyRow(of: block, most: Self.framesInOneStep) else {
      if !blocks.blocks.contains(block.start) { blocks.append(block) }
      return true
    }
    memory.zero(row)
    return false
  }

  /// A block off the stock: still free, and all zero. Asks for more in time.
  mutating func popBlock() -> FrameRun? {
    var block = blocks.popLast()
    while let candidate = block, !pool.isFreeAndZero(candidate) { block = blocks.popLast() }
    if blocks.noteUse() { memory.wantZeroedFrames() }
    return block
  }

  /// The same, in use from now on, and nobody's yet.
  mutating func takeBlock() -> FrameRun? {
    guard let block = popBlock(), pool.takeFixed(block) else { return nil }
    return block
  }
}
