// Free frames whose memory the host can have back: those that were given back, hold something, and have stayed free for
// a while. What is idle is known by chunks of 512 frames, so that a pass over a large pool looks only where frames
// were ever given back, and giving one back costs a bit.
//
// The life of a chunk:
//  1. clean: none of its free frames is known to hold anything. On no map.
//  2. young: a frame of it was given back since the last pass began.
//  3. old: none was since then. The next pass makes it a candidate.
//  4. candidate: the pass goes over its free frames; clean after that.

internal import GuestMemory

/// A bit for each chunk of the pool.
struct ChunkMap: ~Copyable {
  static let framesPerChunk = 512

  private var words: SparseArray<UInt64>

  init(frameCount: Int) throws(ReservationError) {
    words = try SparseArray(count: (frameCount / Self.framesPerChunk) / 64 + 1)
  }

  @inline(__always)
  mutating func insert(chunkOf frame: Int) {
    let chunk = frame / Self.framesPerChunk
    words[chunk / 64] |= 1 << UInt64(chunk % 64)
  }

  var wordCount: Int { words.count }
  subscript(word: Int) -> UInt64 {
    get { words[word] }
    set { words[word] = newValue }
  }
}

/// Where frames were given back.
struct IdleChunks: ~Copyable {
  var young: ChunkMap
  private var old: ChunkMap
  private var candidates: ChunkMap
  private var word = 0
  /// The frame at which the pass goes on, in the chunk it is at.
  fileprivate var position: Int?

  init(frameCount: Int) throws(ReservationError) {
    let young = try ChunkMap(frameCount: frameCount)
    let old = try ChunkMap(frameCount: frameCount)
    let candidates = try ChunkMap(frameCount: frameCount)
    self.young = young
    self.old = old
    self.candidates = candidates
  }

  /// Begins a pass: what is old by now is gone over, what is young grows old.
  fileprivate mutating func beginPass() {
    for word in 0..<old.wordCount {
      candidates[word] = old[word] & ~young[word]
      old[word] |= young[word]
      young[word] = 0
    }
    word = 0
    position = nil
  }

  /// The first frame of the next chunk to go over, which is clean from then on.
  fileprivate mutating func nextChunk() -> Int? {
    while word < candidates.wordCount {
      let bits = candidates[word]
      guard bits != 0 else {
        word += 1
        continue
      }
      let bit = bits & ~(bits - 1)
      candidates[word] &= ~bit
      old[word] &= ~bit
      return (word * 64 + bits.trailingZeroBitCount) * ChunkMap.framesPerChunk
    }
    return nil
  }
}

extension FramePool {
  mutating func beginIdlePass() { idle.beginPass() }

  /// The next free frames in a row that hold something, at most `most`, in chunks to which nothing was given back
  /// between the last two passes. The caller must drop their memory: they count as zero from now on.
  /// - Returns: nil: the pass is over.
  mutating func takeIdleRun(most: Int) -> FrameRun? {
    while let start = idle.position ?? idle.nextChunk() {
      let end = min(count, (start / ChunkMap.framesPerChunk + 1) * ChunkMap.framesPerChunk)
      let first = (start..<end).first { holdsGarbage($0) }
      guard let first else {
        idle.position = nil
        continue
      }
      var last = first
      while last < end, last - first < most, holdsGarbage(last) {
        records.storage[last].flags.remove(.dirty)
        last += 1
      }
      idle.position = last < end ? last : nil
      return FrameRun(start: FrameNumber(UInt32(first)), count: last - first)
    }
    return nil
  }

  /// Free, and not known to be zero.
  private func holdsGarbage(_ frame: Int) -> Bool {
    let record = records.storage[frame]
    return record.isDirty && (record.state == .interior || record.state == .freeHead || record.state == .loose)
  }
}

extension ServerState {
  /// Frames given back to the host in one step: their memory goes with the lock held, about 50 µs.
  private static let idleFramesInOneStep = 256

  /// One step of a pass. Returns how many frames it gave back; 0: the pass is over.
  mutating func giveBackIdleFrames() -> Int {
    guard let run = pool.takeIdleRun(most: Self.idleFramesInOneStep) else { return 0 }
    memory.discard(run)
    statistics.framesGivenBack += UInt64(run.count)
    return run.count
  }
}
