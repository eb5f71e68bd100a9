// A short simulation; `scripts/simulate` runs millions of steps.

import Simulation
import Testing

@Suite struct SimulationTests {
  @Test(
    "R3, R4, R6, R15–R18, R20–R27, R38: random calls of several tasks behave as the model predicts", arguments: 1...6)
  func walks(seed: UInt64) throws {
    for number in 0..<2 { try Episode(seed: seed, number: number).walk().run() }
  }

  @Test(
    "A step that the machine leaves out is detected and shrunk to a short list",
    arguments: [Sabotage.zaps, .zeroing, .copying, .visits, .settling])
  func sabotageIsFound(_ sabotage: Sabotage) throws {
    var found: (walk: Walk, disagreement: Disagreement)?
    for number in 0..<10 where found == nil {
      let walk = try Episode(seed: 1, number: number, sabotage: sabotage).walk()
      do { try walk.run() } catch let disagreement as Disagreement { found = (walk, disagreement) }
    }
    let (walk, disagreement) = try #require(found)
    var shrinker = Shrinker(walk, disagreement)
    let list = shrinker.shrink()
    // To detect a visit that is not waited for, a frame must be mapped, freed and reused.
    #expect(list.count <= min(walk.operations.count, sabotage == .visits ? 60 : 30))
    #expect(Walk.disagreement(walk.world, list)?.kind == disagreement.kind)
    // Written as text and read back, the list is the same.
    let text = OperationFile(world: walk.world, operations: list).text
    #expect(try OperationFile(text: text).operations == list)
  }

  /// The copies share the page that holds both results, and its mapping does not permit a copy on write.
  @Test("R23: a container that cannot be returned leaves no weak capability behind")
  func failedCreationLeavesNothing() throws {
    let file = try OperationFile(
      text: """
        1 loadImage program=1
        2 start image=1 guaranteed=48 contract=false extra=true around=1 keepsMappings=true
        3 map t2 #2 start=1 count=1 at=0x3fffb000 flags=3
        4 map t2 #2 start=1 count=1 at=0x40006000 flags=3
        5 createFilled t2 #2 from=0 count=2 remote=#0 result=0x40006ffc weak=0x3fffbffc
        6 map t2 #2 start=1 count=1 at=0x3fffe000 flags=3
        7 allocate t2 h5.1 start=14 count=3 at=0x3fffebb8 flags=0
        """)
    #expect(Walk.disagreement(file.world, file.operations)?.text == nil)
  }

  /// The cleanup could not finish within its steps, and the error must not be lost.
  @Test("R30: a failing call that is stopped before its cleanup is given up")
  func failedCreationIsGivenUp() throws {
    let file = try OperationFile(
      text: """
        world frames=256 reserved=60 tasks=4 stock=40 tablesKept=16 timeLimit=40 blocks=0
        1 loadImage program=0
        2 start image=1 guaranteed=48 contract=false extra=true around=0 keepsMappings=true
        691 start image=1 guaranteed=22 contract=false extra=true around=1 keepsMappings=true
        1069 start image=1 guaranteed=0 contract=false extra=true around=1 keepsMappings=false
        1219 start image=1 guaranteed=0 contract=false extra=true around=1 keepsMappings=true
        1274 createContainer t1219 result=0x7fffffdefbb8
        1364 stop t1219 steps=6
        1366 releasePages t1219 h1274 ids=[1] at=0x7fffffdff408
        1373 releasePages t1219 h1274 ids=[1030,4,1027,1023,1030] at=0x7fffffdfd100
        1380 allocate t1219 h1274 start=16 count=8 at=0x7fffffdff838 flags=0
        1384 createFilled t1219 #0 fresh count=5 remote=#0 result=0x7fffffdff438 weak=0x0
        1397 releasePages t1219 h1274 ids=[9,15] at=0x7fffffdff820
        1400 createFilled t1219 h1274 from=20 count=2 remote=#0 result=0x7fffffdff428 weak=0x0
        """)
    #expect(Walk.disagreement(file.world, file.operations)?.text == nil)
  }
}
