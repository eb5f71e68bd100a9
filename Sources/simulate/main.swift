import Simulation
import Glibc
var steps = 0
let clock = ContinuousClock()
let seed = UInt64(CommandLine.arguments.count > 1 ? Int(CommandLine.arguments[1])! : 1)
let want = CommandLine.arguments.count > 2 ? Int(CommandLine.arguments[2])! : 100000
let start = clock.now
var episode = 0
func outcome(_ world: World, _ ops: [Simulation.Operation]) -> String? {
  do { try Walk(world, ops).run(); return nil } catch { return "\(error)" }
}
while steps < want {
  let walk = try Episode(seed: seed, number: episode, World()).walk()
  do { try walk.run() } catch {
    print("episode \(episode): \(error)")
    var s = Shrinker(walk.world, walk.operations) { outcome($0, $1) != nil }
    let list = s.shrink()
    print(OperationFile(world: walk.world, operations: list).text)
    print(outcome(walk.world, list)!)
    exit(1)
  }
  steps += walk.operations.count
  episode += 1
}
let t = clock.now - start
print("steps \(steps) in \(t): \(t / steps)")
