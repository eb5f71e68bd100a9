// Campaigns: many short walks from one seed, each with its own world and its own mix of operations.

internal import Synchronization

/// One walk of a campaign, determined by seed and number.
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
    // A single task may have nearly all frames in use.
    world.tasks = random.one(of: [4, 4, 4, 1]) ?? 4
    world.timeLimit = random.one(of: [40, 40, 2000]) ?? 40
    // Zones and superpages need large pools, and every step checks the whole pool, so these walks are few.
    let kind = random.number(below: 120)
    if kind < 2 {
      world.frames = 4096 + 300
      steps = 400
    } else if kind < 17 {
      world.frames = random.one(of: [8192, 8192, 16384]).map { $0 + 300 } ?? 8192
      world.blocks = 32
      steps = 400
    } else {
      steps = random.chance(5) ? 10_000 : random.number(500...3000)
    }
    self.world = world
    self.random = random
  }

  package func walk() throws -> Walk { try Walk(world, Generator(world: world, random: random, steps: steps)) }
}

/// The walks of one seed, from number 0 on. Any number of threads run them until enough steps are done. A walk's result
/// does not depend on the thread or on other walks.
package final class Campaign: Sendable {
  /// What the walks so far have done and found.
  package struct Outcome {
    package var steps = 0
    package var walks = 0
    package var figures = Figures()
    /// The failed walk with the lowest number.
    package var failure: (number: Int, disagreement: Disagreement)?
    /// Set if a walk could not start.
    package var error: (any Error)?
    fileprivate var nextWalk = 0
  }

  private let seed: UInt64
  private let steps: Int
  private let state = Mutex(Outcome())

  package init(seed: UInt64, steps: Int) {
    self.seed = seed
    self.steps = steps
  }

  package var outcome: Outcome { state.withLock { $0 } }

  /// Runs walks on the calling thread. `progress` receives the number of steps done.
  package func work(progress: (Int) -> Void) {
    while let number = takeWalk() {
      do {
        let walk = try Episode(seed: seed, number: number).walk()
        try walk.run()
        progress(finish(walk.operations.count, walk.figures))
      } catch let disagreement as Disagreement {
        state.withLock { state in
          if number < state.failure?.number ?? .max { state.failure = (number, disagreement) }
        }
      } catch {
        state.withLock { $0.error = error }
      }
    }
  }

  private func takeWalk() -> Int? {
    state.withLock { state in
      guard state.steps < steps, state.failure == nil, state.error == nil else { return nil }
      defer { state.nextWalk += 1 }
      return state.nextWalk
    }
  }

  private func finish(_ steps: Int, _ figures: Figures) -> Int {
    state.withLock { state in
      state.steps += steps
      state.walks += 1
      state.figures.add(figures)
      return state.steps
    }
  }
}
