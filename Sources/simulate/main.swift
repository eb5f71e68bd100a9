import Simulation
import Glibc
var steps = 0
let clock = ContinuousClock()
let seed = UInt64(CommandLine.arguments.count > 1 ? Int(CommandLine.arguments[1])! : 1)
let want = CommandLine.arguments.count > 2 ? Int(CommandLine.arguments[2])! : 100000
let start = clock.now
var episode = 0
while steps < want {
  let walk = try Campaign.walk(seed: seed, episode: episode)
  do { try walk.run() } catch {
    print("episode \(episode): \(error)")
    for op in walk.operations.suffix(12) { print(op) }
    exit(1)
  }
  steps += walk.operations.count
  episode += 1
}
let t = clock.now - start
print("steps \(steps) in \(t): \(t / steps)")
