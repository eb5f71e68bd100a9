// A task's handles: 32-bit numbers that are valid in its own table only.

internal import CGuestABI

/// The object that a handle names.
enum HandleTarget: Equatable {
  /// The task itself.
  case task
  /// Another task, identified by its PM_CAP_SELF.
  case peer(TaskSlot, TaskID)
  /// A container the task owns.
  case container(ContainerReference)
  /// A shared container (R20): valid during the container's `epoch`, for the named holder; nil: for any.
  case weak(ContainerReference, epoch: UInt32, holder: TaskID?)
  /// An endpoint, to call and, with the receive right, to receive from.
  case endpoint(EndpointReference, mayReceive: Bool)
  /// The right to set policy (R9).
  case control
}

extension Handle {
  static let none = Handle(UInt32(PM_CAP_NONE))
  static let ownTask = Handle(UInt32(PM_CAP_SELF))
  static let initialContainer = Handle(UInt32(PM_CAP_CONTAINER))

  /// The index in the table.
  fileprivate var entry: Int { Int(rawValue & 0xffff) }
  /// How often the entry was used before.
  fileprivate var reuse: UInt32 { rawValue >> 16 }
}

/// The low 16 bits of a handle are the entry; the high 16 count its reuses, which detects stale handles.
struct HandleTable: ~Copyable {
  private struct Entry {
    var reuse: UInt32
    var target: HandleTarget?
  }

  static let capacity = 1 << 16
  private var entries: [Entry] = [Entry(reuse: 0, target: nil)]
  private var free: [UInt32] = []

  /// Entries 1 and 2 are PM_CAP_SELF and PM_CAP_CONTAINER.
  init(initialContainer: ContainerReference) {
    entries.append(Entry(reuse: 0, target: .task))
    entries.append(Entry(reuse: 0, target: .container(initialContainer)))
  }

  subscript(_ handle: Handle) -> HandleTarget? {
    guard handle.entry < entries.count, entries[handle.entry].reuse == handle.reuse else { return nil }
    return entries[handle.entry].target
  }

  /// Makes a handle; nil when the table is full.
  mutating func insert(_ target: HandleTarget) -> Handle? {
    if let index = free.popLast() {
      entries[Int(index)].target = target
      return Handle(entries[Int(index)].reuse << 16 | index)
    }
    guard entries.count < Self.capacity else { return nil }
    entries.append(Entry(reuse: 0, target: target))
    return Handle(UInt32(entries.count - 1))
  }

  mutating func remove(_ handle: Handle) {
    entries[handle.entry].target = nil
    // Retire an entry whose reuse count is used up: no handle may ever name two objects.
    guard entries[handle.entry].reuse < 0xffff else { return }
    entries[handle.entry].reuse += 1
    free.append(UInt32(handle.entry))
  }

  func forEach(_ body: (HandleTarget) -> Void) {
    for entry in entries { if let target = entry.target { body(target) } }
  }

  /// Entries ever used.
  var entryCount: Int { entries.count }

  func target(ofEntry index: Int) -> HandleTarget? { entries[index].target }
}
