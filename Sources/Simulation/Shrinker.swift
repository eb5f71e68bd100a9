// Shrinks a list of operations that shows a failure. It leaves out parts as long as the list still fails, then
// simplifies the rest.

internal import PhysicalMemory

/// Shrinks a list of operations that fails.
package struct Shrinker {
  private let world: World
  /// Whether a list still fails.
  private let fails: (World, [Operation]) -> Bool
  package private(set) var operations: [Operation]
  /// Number of lists tried.
  package private(set) var attempts = 0

  package init(_ world: World, _ operations: [Operation], fails: @escaping (World, [Operation]) -> Bool) {
    self.world = world
    self.operations = operations
    self.fails = fails
  }

  private mutating func take(_ shorter: [Operation]) -> Bool {
    guard shorter != operations else { return false }
    attempts += 1
    guard fails(world, shorter) else { return false }
    operations = shorter
    return true
  }

  /// - Returns: a failing list from which no single operation can be left out.
  package mutating func shrink() -> [Operation] {
    leaveOutGroups()
    _ = leaveOut()
    repeat { simplify() } while leaveOut()
    return operations
  }

  /// Leaves out all operations of a task, and all of a kind: most are unrelated.
  private mutating func leaveOutGroups() {
    for task in Set(operations.compactMap(\.action.task)) {
      _ = take(operations.filter { $0.action.task != task && $0.label != task.label })
    }
    for kind in Set(operations.map(\.action.kind)) { _ = take(operations.filter { $0.action.kind != kind }) }
  }

  /// Leaves out halves down to single operations, last ones first, so that everything after the failure goes at once.
  private mutating func leaveOut() -> Bool {
    var isChanged = false
    var size = max(1, operations.count / 2)
    while true {
      var end = operations.count
      while end > 0 {
        let start = max(0, end - size)
        if take(Array(operations[..<start] + operations[end...])) { isChanged = true }
        end = min(start, operations.count)
      }
      if size == 1 { return isChanged }
      size = max(1, size / 2)
    }
  }

  private mutating func simplify() {
    for index in operations.indices.reversed() {
      for simpler in operations[index].action.simpler {
        var list = operations
        list[index].action = simpler
        _ = take(list)
      }
    }
  }
}

extension Walk {
  /// The disagreement when a list runs in a world; nil: none.
  package static func disagreement(_ world: World, _ operations: [Operation]) -> Disagreement? {
    do {
      try Walk(world, operations).run()
      return nil
    } catch {
      return error as? Disagreement
    }
  }
}

extension Shrinker {
  /// Shrinks a failed walk as long as the same kind of failure occurs.
  package init(_ walk: Walk, _ disagreement: Disagreement) {
    self.init(walk.world, walk.operations) { Walk.disagreement($0, $1)?.kind == disagreement.kind }
  }
}

extension Action {
  fileprivate var task: TaskName? { if case .task(let name, _) = self { name } else { nil } }
  fileprivate var kind: Substring { text.prefix { $0 != " " } }

  /// The action with one argument simplified, in all possible ways.
  fileprivate var simpler: [Action] {
    switch self {
    case .start(let image, let guaranteed, let contract, let extra, let around, let keepsMappings):
      func start(_ guaranteed: Int, _ contract: Bool, _ extra: Bool, _ around: Around, _ keeps: Bool) -> Action {
        .start(
          image: image, guaranteed: guaranteed, contract: contract, extra: extra, around: around, keepsMappings: keeps)
      }
      return [
        start(0, false, true, 1, true), start(0, contract, extra, around, keepsMappings),
        start(guaranteed, contract, extra, 1, keepsMappings), start(guaranteed, contract, extra, around, true),
        start(guaranteed, false, true, around, keepsMappings),
      ]
    case .end(let task, let pause): return pause == 0 ? [] : [.end(task, pause: 0), .end(task, pause: pause - 1)]
    case .stop(let task, let steps): return steps == 0 ? [] : [.stop(task, steps: 0), .stop(task, steps: steps - 1)]
    case .work(let task, let time): return time == 5000 ? [] : [.work(task, microseconds: 5000)]
    case .pass(let time): return time > 1 ? [.pass(microseconds: 1), .pass(microseconds: time / 2)] : []
    case .task(let task, let call): return call.simpler.map { .task(task, $0) }
    default: return []
    }
  }
}

extension IDArgument {
  fileprivate var simpler: [IDArgument] {
    switch self {
    case .from: []
    case .list(let ids, _): ids.first.map { [.from($0)] } ?? []
    }
  }
}

extension MessageArgument {
  fileprivate var simpler: [MessageArgument] {
    var lists = [MessageArgument(), MessageArgument(handles: handles)]
    for index in handles.indices {
      var handles = handles
      handles[index] = .number(0)
      lists.append(MessageArgument(handles: handles, moves: moves))
    }
    return lists
  }
}

extension PlacementArgument {
  fileprivate var simpler: [PlacementArgument] {
    [\PlacementArgument.below, \.alignment, \.boundary, \.fixed].map { field in
      var plainer = self
      plainer[keyPath: field] = 0
      return plainer
    }
  }
}

extension Call {
  fileprivate var simpler: [Call] {
    switch self {
    case .load(let address, let count, _): return count > 1 ? [.load(at: address, count: 1, .read)] : []
    case .allocate(let handle, let start, let count, let address, let flags):
      return [
        .allocate(handle, start: start, count: 1, at: address, flags: flags),
        .allocate(handle, start: start, count: count, at: address, flags: 0),
      ]
    case .allocatePlaced(let handle, let start, let count, let address, let flags, let placement, let place):
      func placed(_ count: UInt32, _ flags: UInt32, _ placement: PlacementArgument) -> Call {
        .allocatePlaced(handle, start: start, count: count, at: address, flags: flags, placement, in: place)
      }
      return [placed(1, flags, placement), placed(count, 0, placement)]
        + placement.simpler.map { placed(count, flags, $0) }
    case .deallocate(let handle, let start, let count, let address, let flags):
      return [
        .deallocate(handle, start: start, count: 1, at: address, flags: flags),
        .deallocate(handle, start: start, count: count, at: address, flags: 0),
      ]
    case .map(let handle, let start, let count, let address, let flags):
      return [
        .map(handle, start: start, count: 1, at: address, flags: flags),
        .map(handle, start: start, count: count, at: address, flags: 3),
      ]
    case .copy(let source, let from, let destination, let to, let count, let frameError):
      return [.copy(source, from, to: destination, to, count: count, frameError: 0)]
        + [.copy(source, from, to: destination, to, count: 1, frameError: frameError)]
        + from.simpler.map { .copy(source, $0, to: destination, to, count: count, frameError: frameError) }
        + to.simpler.map { .copy(source, from, to: destination, $0, count: count, frameError: frameError) }
    case .createFilled(let source, let ids, let count, let remote, let result, let weak):
      func filled(_ ids: IDArgument?, _ count: UInt32, _ remote: HandleArgument, _ weak: UInt64) -> Call {
        .createFilled(source, ids, count: count, remote: remote, result: result, weak: weak)
      }
      return [
        filled(nil, count, remote, weak), filled(ids, 1, remote, weak), filled(ids, count, .number(0), weak),
        filled(ids, count, remote, 0),
      ] + (ids?.simpler ?? []).map { filled($0, count, remote, weak) }
    case .releasePages(let handle, let ids, let address):
      return ids.indices.map { index in
        .releasePages(handle, ids.enumerated().filter { $0.offset != index }.map(\.element), at: address)
      }
    case .recoverPages(let handle, let ids, let address, let frameError):
      return [.recoverPages(handle, ids, at: address, frameError: 0)]
        + ids.indices.map { index in
          .recoverPages(
            handle, ids.enumerated().filter { $0.offset != index }.map(\.element), at: address, frameError: frameError)
        }
    case .share(let handle, _, let result): return [.share(handle, remote: .number(0), result: result)]
    case .pin(let handle, let start, _, let time, let address):
      return [.pin(handle, start: start, count: 1, microseconds: time, physical: address)]
    case .call(let handle, let message, let address, let mayWait):
      return message.simpler.map { .call(handle, $0, at: address, mayWait: mayWait) }
    case .reply(let reply, let message, let address):
      return message.simpler.map { .reply(reply, $0, at: address) }
    case .replyAndReceive(let handle, let reply, let message, let address, let mayWait):
      return message.simpler.map { .replyAndReceive(handle, reply, $0, at: address, mayWait: mayWait) }
    default: return []
    }
  }
}
