// Transfers: what a device may reach, and for how long. The server is the device's IOMMU (R22): a device works on frames
// that its driver has pinned, and on nothing else.
//
// The life of a transfer:
//  1. begun: its driver had each of its frames pinned at that moment, and each frame counts it. Until it ends the frames
//     stay where they are and whose they are, also when the driver unpins them, its time is up, or it dies.
//  2. ended: a pin that was ended meanwhile goes with the last transfer in its frame.
// The device works on the frames in between, without the server's lock.

public import GuestMemory

/// A task as a device knows it: not the next one in its slot.
public struct TaskReference: Hashable, Sendable {
  public let slot: TaskSlot
  public let id: TaskID

  public init(slot: TaskSlot, id: TaskID) {
    self.slot = slot
    self.id = id
  }
}

/// Why a transfer cannot begin: this frame is not pinned by the driver now, or the driver has ended.
public struct TransferRefusal: Error, Equatable {
  public let frame: FrameNumber
}

extension ServerState {
  /// How long somebody who waits for a transfer's end sleeps at most, in nanoseconds; the end wakes it.
  static var transferPatience: UInt64 { 10_000_000 }

  /// Begins a transfer with some frames, all of them or none. A frame that is in there twice counts twice.
  mutating func beginTransfer(_ driver: TaskReference, _ runs: Span<FrameRun>) throws(TransferRefusal) {
    let now = events.now
    let isLive =
      tasks.contains(driver.slot) && tasks[driver.slot].id == driver.id
      && !tasks[driver.slot].isEnding
    for index in runs.indices {
      for offset in 0..<runs[index].count {
        // The device's own arithmetic keeps runs inside the numbers that there are.
        let frame = runs[index].start.advanced(by: offset)
        guard isLive, pins.contains(frame), pins[frame].pin.isGood(for: driver.slot, now), pins[frame].transfers < .max
        else {
          withdrawTransfer(runs, before: index, offset)
          throw TransferRefusal(frame: frame)
        }
        pins.beginTransfer(frame)
      }
    }
  }

  private mutating func withdrawTransfer(_ runs: Span<FrameRun>, before last: Int, _ count: Int) {
    for index in 0..<last { endTransfer(runs[index]) }
    if count > 0 { endTransfer(FrameRun(start: runs[last].start, count: count)) }
  }

  /// Ends a transfer, or a part of it.
  mutating func endTransfer(_ run: FrameRun) {
    let now = events.now
    for offset in 0..<run.count {
      let frame = run.start.advanced(by: offset)
      pins.endTransfer(frame)
      let pinned = pins[frame]
      if pinned.transfers == 0, pinned.pin.isEnded || pinned.pin.deadline <= now {
        endPin(frame)
        events.wake(containers[pinned.place.container].owner)
      }
    }
  }
}

extension PhysicalMemoryServer {
  /// Frames handled before the lock is given to others.
  private static let transferStep = 2048

  /// Begins a transfer of a device with frames that its driver has pinned, all of them or none; `endTransfer` with the
  /// same runs follows.
  public func beginTransfer(_ driver: TaskReference, _ runs: [FrameRun]) throws(TransferRefusal) {
    if runs.reduce(0, { $0 + $1.count }) <= Self.transferStep {
      return try withState { (state) throws(TransferRefusal) in try state.beginTransfer(driver, runs.span) }
    }
    let steps = Self.steps(runs)
    for index in steps.indices {
      do throws(TransferRefusal) {
        let step = [steps[index]]
        try withState { (state) throws(TransferRefusal) in try state.beginTransfer(driver, step.span) }
      } catch {
        for begun in steps[..<index] { withState { $0.endTransfer(begun) } }
        throw error
      }
    }
  }

  public func endTransfer(_ runs: [FrameRun]) {
    if runs.reduce(0, { $0 + $1.count }) <= Self.transferStep {
      withState { state in for run in runs { state.endTransfer(run) } }
    } else {
      for run in Self.steps(runs) { withState { $0.endTransfer(run) } }
    }
  }

  private static func steps(_ runs: [FrameRun]) -> [FrameRun] {
    runs.flatMap { run in
      stride(from: 0, to: run.count, by: transferStep).map { offset in
        FrameRun(start: run.start.advanced(by: offset), count: min(transferStep, run.count - offset))
      }
    }
  }
}
