// Frames that page tables are made of, whatever other tasks do.

/// Frames set aside for page tables, so that a frame a task has a claim to can be mapped, whatever other tasks do (R3):
/// no task gets more than its quota of them. Counts are in frames.
struct TableReserve {
  /// Not to be had for contents.
  let reserved: Int
  /// Of these, taken by tasks within their quotas.
  var taken = 0
  /// All tables, those kept for tasks that have ended too.
  var used = 0

  /// Below the root there are three levels.
  static let mostForAPage = 3

  /// What a task may take whatever it claims: its image, stack and heap need about nine.
  private static let base = 32

  init(frameCount: Int) { reserved = max(32, frameCount / 64) }

  /// Tables a task may take from the reserve: twice what the frames that it has, or has a claim to, need when mapped
  /// in a row.
  static func quota(frames: Int) -> Int { base + frames / 256 }
}
