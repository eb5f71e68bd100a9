// Random walks over everything that tasks can do, against a naive model, with every invariant checked at each step.
// A failure names its seed and the last operations. PHYSMEM_SEED=7 runs that walk alone, PHYSMEM_SEED=1-500 many.

import Glibc
import Testing

@Suite struct SimulationTests {
  private static var seeds: [UInt64] {
    // SAFETY: the text is copied at once, and nothing changes the environment.
    guard let text = unsafe getenv("PHYSMEM_SEED").map({ unsafe String(cString: $0) }) else { return Array(1...6) }
    let ends = text.split(separator: "-").compactMap { UInt64($0) }
    guard let first = ends.first, let last = ends.last, first <= last else { return [] }
    return Array(first...last)
  }

  @Test("R3, R4, R6, R15–R18, R24–R27: any calls of several tasks do what the model says", arguments: seeds)
  func randomWalk(seed: UInt64) throws {
    var simulation = try Simulation(seed: seed)
    try simulation.run()
  }
}
