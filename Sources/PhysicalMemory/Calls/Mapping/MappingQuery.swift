// pm_mapping (R27): reports the mapping of an address.

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
