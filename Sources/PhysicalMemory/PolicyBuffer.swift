// Who decides about memory (R7–R14).

struct PolicyState {
  /// Somebody has, or had, control: memory is no longer given first come, first served.
  var isControlled = false
}

extension ServerState {
  mutating func noteAllocated(_ task: TaskSlot) {}
}
