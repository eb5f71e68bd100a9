// pm_mapping (R27): reports the mapping of an address.

internal import GuestMemory

struct MappingQuery: ServerCall {
  let address: GuestAddress
  let result: GuestAddress

  init(_ arguments: CallArguments) {
    address = arguments.words.0.asAddress
    result = arguments.words.1.asAddress
  }

  func perform(_ caller: CallContext) throws(CallFailure) {
    try caller.step { (state) throws(CallFailure) in
      let information = try state.mappingInformation(caller.task, address: address)
      try state.store(information.words, caller.task, result)
    }
  }
}

extension MappingInformation {
  /// In the layout of `struct pm_mapping`, two 32-bit members a word.
  fileprivate var words: [UInt64] {
    [
      UInt64(container.rawValue) | UInt64(frame.rawValue) << 32,
      UInt64(rights.rawValue) | UInt64(requested.rawValue) << 32,
      physicalAddress,
    ]
  }
}

/// The result of pm_mapping (R27).
public struct MappingInformation: Equatable, Sendable {
  /// The caller's handle of the container; 0 when the caller does not own it.
  public var container: Handle
  /// The id mapped at the address.
  public var frame: FrameID
  /// The rights in force in the page table.
  public var rights: MappingFlags
  /// The rights requested by pm_container_map.
  public var requested: MappingFlags
  /// The frame's address in bytes; 0 without a frame.
  public var physicalAddress: UInt64
}

extension ServerState {
  /// - Throws: `.noEntry` where nothing is mapped, or where the frame is no longer allocated.
  mutating func mappingInformation(_ task: TaskSlot, address: GuestAddress) throws(CallFailure) -> MappingInformation {
    let page = address.page
    guard let index = tasks[task].mappings.find(page) else { throw .noEntry }
    let mapping = tasks[task].mappings[index]
    guard isGood(mapping) else { throw .noEntry }
    let id = mapping.frame(at: page)
    let word = containers[mapping.container.slot].frames[id]
    guard word.isUsed else { throw .noEntry }
    return MappingInformation(
      container: containers[mapping.container.slot].owner == task ? containers[mapping.container.slot].handle : 0,
      frame: id,
      rights: spaces.mappedPage(task, page)?.rights ?? [],
      requested: mapping.flags,
      physicalAddress: word.content.map { contents[$0].frame.address } ?? 0)
  }
}
