// How long the server's lock is held, for `physmem run --stats`: the longest time any other thread waits for one hold.

internal import GuestMemory

struct HoldTimes: ~Copyable {
  /// A histogram: four buckets for each power of two of nanoseconds.
  private var counts = [UInt64](repeating: 0, count: 4 * 40)
  private(set) var count: UInt64 = 0
  private(set) var longest: UInt64 = 0

  mutating func add(_ nanoseconds: UInt64) {
    longest = max(longest, nanoseconds)
    count += 1
    let value = Int(clamping: max(4, nanoseconds))
    let order = min(39, floorLog2(value))
    counts[4 * order + (value >> (order - 2) & 3)] += 1
  }

  /// The hold time in nanoseconds that `share` of a thousand holds do not exceed, to within a quarter.
  func quantile(_ share: UInt64) -> UInt64 {
    var left = count * share / 1000
    for index in counts.indices {
      guard counts[index] < left else { return min(longest, UInt64(5 + index % 4) << UInt64(max(0, index / 4 - 2))) }
      left -= counts[index]
    }
    return longest
  }
}
