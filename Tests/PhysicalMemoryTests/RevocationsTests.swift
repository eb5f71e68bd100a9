// Collecting frames to zap: adjacent ones in one run, whichever way they come.

import GuestMemory
import Testing

@testable import PhysicalMemory

@Suite struct RevocationsTests {
  private func runs(_ frames: [UInt32]) -> [[Int]] {
    var runs: [FrameRun] = []
    for frame in frames { Revocations.append(FrameNumber(frame), to: &runs) }
    return runs.map { [Int($0.start.rawValue), $0.count] }
  }

  @Test func adjacentFramesAreOneRun() {
    #expect(runs([5, 6, 7]) == [[5, 3]])
    #expect(runs([7, 6, 5]) == [[5, 3]])
    #expect(runs([6, 7, 5, 8]) == [[5, 4]])
  }

  @Test func othersAreRunsOfTheirOwn() {
    #expect(runs([5, 7, 6]) == [[5, 1], [6, 2]])
    #expect(runs([5, 5]) == [[5, 1], [5, 1]])
    #expect(runs([9]) == [[9, 1]])
  }
}
