// What tasks and the machine can do to the server, as values: made by chance, done to the server and to a model.

import GuestMemory
import PhysicalMemory

/// A task of a simulation, numbered in the order they begin; never used again.
struct TaskName: Hashable, CustomStringConvertible {
  let number: Int
  var description: String { "task \(number)" }
}

enum SimulatedOperation {
  case start(TaskName, guaranteed: Int, hasContract: Bool, mayUseExtra: Bool, around: FaultAround)
  case end(TaskName)
  case create(TaskName)
  case destroy(TaskName, UInt32)
  case allocate(TaskName, UInt32, IDs, AllocationFlags)
  case deallocate(TaskName, UInt32, IDs, DeallocationFlags)
  case map(TaskName, UInt32, IDs, PageNumber, MappingFlags)
  case unmap(TaskName, PageNumber, count: UInt32)
  case load(TaskName, address: UInt64, Access)
  case store(TaskName, address: UInt64, UInt8)
  case describe(TaskName, PageNumber)
  case account(TaskName)
  case zeroAhead(target: Int)
  case releaseClosedSpaces

  /// Ids as a call names them: not checked.
  struct IDs {
    let start: UInt32
    let count: UInt32
  }
}

/// What came of an operation: the same on the server and in the model.
enum SimulatedResult: Equatable {
  case done
  case failed(ServerError)
  case counted(CallResult)
  case byte(UInt8)
  case unserved(FaultOutcome)
  case mapping(container: UInt32, frame: UInt32, requested: MappingFlags)
  case account(guaranteed: Int, allocated: Int, available: Int)
}
