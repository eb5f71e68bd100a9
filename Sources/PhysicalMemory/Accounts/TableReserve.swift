// The reserve of frames for page tables.

/// Frames set aside for page tables, so that a frame a task claims can always be mapped (R3). Each task has a quota.
/// Counts are in frames.
struct TableReserve {
  /// Not available to contents.
  let reserved: Int
  /// The part taken by tasks within their quotas.
  var taken = 0
  /// All tables, including those kept for ended tasks.
  var used = 0

  /// There are three levels below the root.
  static let mostForAPage = 3

  /// The least quota: image, stack and heap need about nine.
  private static let base = 32

  init(frameCount: Int) { reserved = max(32, frameCount / 64) }

  /// A task's quota of the reserve, in tables: twice what its frames need when mapped contiguously.
  /// - Parameter frames: what the task has or claims, whichever is larger.
  static func quota(frames: Int) -> Int { base + frames / 256 }
}
