// Device transfers in a walk. They start and end between the calls of tasks.

internal import GuestMemory
internal import PhysicalMemory

/// A transfer under way.
struct WalkTransfer {
  let container: ModelContainer
  let ids: ClosedRange<UInt32>
  let runs: [FrameRun]
}

extension Walk {
  func beginTransfer(_ task: ModelTask, _ handle: UInt32, _ start: UInt32, _ count: UInt32) throws {
    guard let (container, ids, frames) = model.transferFrames(task, handle, start, count) else { return }
    let runs = frames.map { FrameRun(start: $0, count: 1) }
    var hasBegun = false
    do throws(TransferRefusal) {
      try server.beginTransfer(TaskReference(slot: task.slot, id: task.id), runs)
      hasBegun = true
    } catch {}
    guard model.beginTransfer(task, container, ids) == hasBegun else {
      throw fail("a transfer \(hasBegun ? "began" : "was refused"), and should not have")
    }
    guard hasBegun else { return }
    transfers.append(WalkTransfer(container: container, ids: ids, runs: runs))
    transferCount += 1
  }

  func endTransfer(_ number: Int) {
    guard !transfers.isEmpty else { return }
    let transfer = transfers.remove(at: number % transfers.count)
    let pins = transfer.container.pins
    if transfer.ids.contains(where: { (pins[$0]?.deadline ?? 0) <= model.now }) { outlastingCount += 1 }
    server.endTransfer(transfer.runs)
    model.endTransfer(transfer.container, transfer.ids)
  }

  func endAllTransfers() {
    while !transfers.isEmpty { endTransfer(0) }
  }
}
