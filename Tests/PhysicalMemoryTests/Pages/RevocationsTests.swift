// Batching of frames to zap: adjacent ones become one run, in any order.

import GuestMemory
import Testing

@testable import PhysicalMemory

@Suite struct RevocationsTests {
  private func runs(_ frames: [UInt32]) -> [[Int]] {
    var runs: [FrameRun] = []
    for frame in frames { Revocations.append(FrameNumber(frame), to: &runs, mayRepeat: true) }
    return runs.map { [Int($0.start.rawValue), $0.count] }
  }

  @Test func adjacentFramesAreOneRun() {
    #expect(runs([5, 6, 7]) == [[5, 3]])
    #expect(runs([7, 6, 5]) == [[5, 3]])
    #expect(runs([6, 7, 5, 8]) == [[5, 4]])
  }

  @Test func othersAreRunsOfTheirOwn() {
    #expect(runs([5, 7, 6]) == [[5, 1], [6, 2]])
    #expect(runs([5, 5]) == [[5, 1]])
    #expect(runs([9]) == [[9, 1]])
  }

  private func joined(_ frames: [UInt32]) -> [[Int]] {
    var runs: [FrameRun] = []
    for frame in frames { Revocations.append(FrameNumber(frame), to: &runs, mayRepeat: true) }
    Revocations.join(&runs, mayRepeat: true)
    return runs.map { [Int($0.start.rawValue), $0.count] }
  }

  @Test func rowsThatCameInAnyOrderAreOneRun() {
    #expect(joined([16, 17, 18, 0, 1, 2, 8, 9, 3, 4]) == [[0, 5], [8, 2], [16, 3]])
    #expect(joined([12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7]) == [[4, 12]])
    #expect(joined([]) == [])
    #expect(joined([3]) == [[3, 1]])
  }

  @Test func aFrameThatIsThereTwiceStaysIn() {
    let frames = Set(joined([5, 9, 5]).flatMap { run in Array(run[0]..<(run[0] + run[1])) })
    #expect(frames == [5, 9])
  }

  @Test func givingBackTwiceTraps() async {
    await #expect(processExitsWith: .failure) {
      var runs: [FrameRun] = []
      for frame in [5, 6, 5] as [UInt32] { Revocations.append(FrameNumber(frame), to: &runs, mayRepeat: false) }
    }
    await #expect(processExitsWith: .failure) {
      var runs: [FrameRun] = []
      for frame in [5, 9, 5] as [UInt32] { Revocations.append(FrameNumber(frame), to: &runs, mayRepeat: false) }
      Revocations.join(&runs, mayRepeat: false)
    }
    await #expect(processExitsWith: .success) {
      var runs: [FrameRun] = []
      for frame in [5, 6, 9, 4, 7] as [UInt32] { Revocations.append(FrameNumber(frame), to: &runs, mayRepeat: false) }
      Revocations.join(&runs, mayRepeat: false)
    }
  }

  @Test("Safety: a frame freed by two parts of a step traps") func serverTraps() async {
    await #expect(processExitsWith: .failure) {
      var server = try OpenServer(frames: 1024)
      guard let frame = server.state.pool.takeFrame() else { return }
      for _ in 0..<2 { Revocations.append(frame, to: &server.state.revocations.unused, mayRepeat: false) }
      server.state.finishRevocations()
    }
  }
}
