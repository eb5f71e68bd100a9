// Many short walks, each in a world of its own and with a mix of its own, from one seed.

/// One walk of a campaign. Two of the same seed and number are the same.
package struct Episode: Sendable {
  package let world: World
  package let steps: Int
  private let random: Randomness

  package init(seed: UInt64, number: Int, sabotage: Sabotage? = nil) {
    var random = Randomness(seed: seed, number)
    var world = World()
    world.sabotage = sabotage
    world.stock = random.one(of: [0, 8, 40]) ?? 0
    world.tablesKept = random.one(of: [16, 16, 2]) ?? 16
    world.reserved = random.one(of: [1, 5, 60]) ?? 1
    world.timeLimit = random.one(of: [40, 40, 2000]) ?? 40
    steps = random.chance(5) ? 10_000 : random.number(500...3000)
    self.world = world
    self.random = random
  }

  package func walk() throws -> Walk { try Walk(world, Generator(world: world, random: random, steps: steps)) }
}
