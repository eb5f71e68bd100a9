// Random walks over everything that tasks can do, against a naive model, with every invariant checked at each step.
// A failure names its seed and the last operations; PHYSMEM_SEED=n runs that walk alone.

import Glibc
import Testing

@Suite struct SimulationTests {
  private static var seeds: [UInt64] {
    // SAFETY: the text is read at once, and nothing changes the environment.
    if let text = unsafe getenv("PHYSMEM_SEED"), let seed = unsafe UInt64(String(cString: text)) { return [seed] }
    return Array(1...6)
  }

  @Test("R3, R4, R6, R15–R18, R24–R27: any calls of several tasks do what the model says", arguments: seeds)
  func randomWalk(seed: UInt64) throws {
    var simulation = try Simulation(seed: seed)
    try simulation.run()
  }
}
