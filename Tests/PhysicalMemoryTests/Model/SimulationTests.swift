// The simulation in small: `scripts/simulate` does the same by the million.

import Simulation
import Testing

@Suite struct SimulationTests {
  @Test("R3, R4, R6, R15–R18, R20–R27, R38: any calls of several tasks do what the model says", arguments: 1...6)
  func walks(seed: UInt64) throws {
    for number in 0..<2 { try Episode(seed: seed, number: number).walk().run() }
  }

  @Test(
    "What a machine leaves out is found, and shrunk to a short list",
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
    // A frame must have been seen, freed and used again for a visit that is not waited for to be noticed.
    #expect(list.count <= min(walk.operations.count, sabotage == .visits ? 60 : 30))
    #expect(Walk.disagreement(walk.world, list)?.kind == disagreement.kind)
    // Written down and read again it is the same.
    let text = OperationFile(world: walk.world, operations: list).text
    #expect(try OperationFile(text: text).operations == list)
  }

  /// The copies share the page that both results lie on, and its mapping does not permit copying it on a write.
  @Test("R23: a container that cannot be given leaves no weak capability behind")
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
}
