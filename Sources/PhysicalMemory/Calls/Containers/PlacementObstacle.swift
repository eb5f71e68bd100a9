// pm_placement_obstacle (R19): reports what blocked the task's last refused placement.

struct PlacementObstacle: ServerCall {
  let result: GuestAddress

  init(_ arguments: CallArguments) { result = arguments.words.0.asAddress }

  func perform(_ caller: CallContext) throws(CallFailure) {
    try caller.step { (state) throws(CallFailure) in
      let obstacle = state.tasks[caller.task].obstacle ?? Obstacle(address: 0, kind: .none)
      try state.store([obstacle.address, UInt64(obstacle.kind.rawValue)], caller.task, result)
    }
  }
}
