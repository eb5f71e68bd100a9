import Simulation
import Glibc
var steps = 0
let clock = ContinuousClock()
let seed = UInt64(CommandLine.arguments.count > 1 ? Int(CommandLine.arguments[1])! : 1)
let want = CommandLine.arguments.count > 2 ? Int(CommandLine.arguments[2])! : 100000
var start = clock.now
var episode = CommandLine.arguments.count > 3 ? Int(CommandLine.arguments[3])! : 0
func outcome(_ world: World, _ ops: [Simulation.Operation]) -> Disagreement? {
  do { try Walk(world, ops).run(); return nil } catch { return error as? Disagreement }
}
while steps < want {
  let walk = try Episode(seed: seed, number: episode).walk()
  do { try walk.run() } catch {
    let kind = (error as! Disagreement).kind
    print("episode \(episode) \(walk.operations.count): \(error)"); fflush(nil)
    start = clock.now
    var n = 0, shortest = Int.max
    var s = Shrinker(walk.world, walk.operations) { 
      let r = outcome($0, $1)?.kind == kind 
      n += 1
      if r { shortest = $1.count }
      if n % 100 == 0 { print(n, shortest, clock.now - start); fflush(nil) }
      return r
      }
    let list = s.shrink()
    print(s.attempts)
    print(OperationFile(world: walk.world, operations: list).text)
    print(outcome(walk.world, list)!)
    exit(1)
  }
  if episode % 50 == 0 { print("at", episode, steps, clock.now - start); fflush(nil) }
  steps += walk.operations.count
  episode += 1
}
let t = clock.now - start
print("steps \(steps) in \(t): \(t / steps)")
