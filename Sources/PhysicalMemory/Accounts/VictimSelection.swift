// Victim selection: which task to demand frames from. A program that embeds the server can replace it (R30).

/// A task with extra frames that were not demanded yet. Counts are in frames.
public struct VictimCandidate: Equatable, Sendable {
  let slot: TaskSlot
  /// The task's id.
  public let task: TaskID
  /// Its guarantee.
  public let guaranteed: Int
  /// What it has.
  public let allocated: Int
  /// Extra frames that were not demanded yet.
  public let extra: Int
  /// Grows with each demand on any task; 0: never asked.
  public let lastTurn: UInt64
}

/// A policy that selects victims.
public protocol VictimSelection: Sendable {
  /// Selects the next victim. Called with the server's lock held; must not call the server.
  /// - Parameter candidates: at least one.
  /// - Returns: an index in `candidates`.
  func choose(among candidates: [VictimCandidate]) -> Int
}

/// Selects the task with the most extra frames; among equals, the one asked longest ago.
public struct MostExtraFirst: VictimSelection {
  /// The only value.
  public init() {}

  /// Selects the task with the most extra frames.
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
