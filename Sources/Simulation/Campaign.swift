package enum Campaign {
  package static func walk(seed: UInt64, episode: Int) throws -> Walk {
    var random = Randomness(seed: seed, episode)
    var world = World()
    world.stock = random.one(of: [0, 8, 40]) ?? 0
    world.tablesKept = random.one(of: [16, 16, 2]) ?? 16
    let steps = 2000
    return try Walk(world, Generator(world: world, random: random, steps: steps))
  }
}
