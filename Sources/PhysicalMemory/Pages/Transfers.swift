// Transfers: which frames a device may access, and for how long. The server is the device's IOMMU (R22): a device can
// access only frames that its driver has pinned.
//
// The life of a transfer:
//  1. begun: the driver has each frame pinned, and each frame counts the transfer. Until it ends, the frames stay in
//     place and keep their owner, even if the driver unpins them, its pin expires, or it dies.
//  2. ended: a pin that was ended meanwhile is removed with the last transfer of its frame.
// In between, the device accesses the frames without the server's lock.

public import GuestMemory

/// A task as a device knows it; does not match the next task in the same slot.
public struct TaskReference: Hashable, Sendable {
  /// The task's slot.
  public let slot: TaskSlot
  /// The task's id.
  public let id: TaskID

  /// - Parameters:
  ///   - slot: the task's slot.
  ///   - id: the task's id.
  public init(slot: TaskSlot, id: TaskID) {
    self.slot = slot
    self.id = id
  }
}

/// Why a transfer was refused: the driver has not pinned this frame, or has ended.
public struct TransferRefusal: Error, Equatable {
  /// The first frame that is not pinned.
  public let frame: FrameNumber
}

extension ServerState {
  /// The maximum wait for the end of a transfer, in nanoseconds; the end wakes the waiter earlier.
  static var transferPatience: UInt64 { 10_000_000 }

  /// Begins a transfer on all of the frames or none. A frame listed twice counts twice.
  mutating func beginTransfer(_ driver: TaskReference, _ runs: Span<FrameRun>) throws(TransferRefusal) {
    let now = events.now
    let isLive =
      tasks.contains(driver.slot) && tasks[driver.slot].id == driver.id
      && !tasks[driver.slot].isEnding
    for index in runs.indices {
      for offset in 0..<runs[index].count {
        // The device has checked that the runs do not overflow frame numbers.
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
  /// Frames handled for each hold of the lock.
  private static let transferStep = 2048

  /// Begins a transfer of a device on frames that its driver has pinned, all or none; `endTransfer` with the same runs
  /// follows.
  /// - Throws: `TransferRefusal` with a frame that the driver has not pinned.
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

  /// Ends a transfer.
  /// - Parameter runs: those of `beginTransfer`.
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
