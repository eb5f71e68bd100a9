// Whom to ask for frames: a rule that a program around the server can replace (R30).

/// A task with extra frames that nobody has asked for yet. Counts are in frames.
public struct VictimCandidate: Equatable, Sendable {
  let slot: TaskSlot
  public let task: TaskID
  public let guaranteed: Int
  public let allocated: Int
  /// Beyond its guarantee, and not asked for.
  public let extra: Int
  /// Grows with each demand on anyone; 0: never asked.
  public let lastTurn: UInt64
}

public protocol VictimSelection: Sendable {
  /// Called with the server's lock held; must not call the server.
  /// - Returns: an index in `candidates`, of which there is at least one.
  func choose(among candidates: [VictimCandidate]) -> Int
}

/// Who has most; of several, who was asked longest ago.
public struct MostExtraFirst: VictimSelection {
  public init() {}

  public func choose(among candidates: [VictimCandidate]) -> Int {
    var best = 0
    for index in candidates.indices.dropFirst() {
      let (candidate, leader) = (candidates[index], candidates[best])
      if candidate.extra > leader.extra || candidate.extra == leader.extra && candidate.lastTurn < leader.lastTurn {
        best = index
      }
    }
    return best
  }
}
