// Operations as lines of text, for people and for `simulate --operations`.
//
//      world frames=256 reserved=1 tasks=4 stock=16 tablesKept=16 timeLimit=60 blocks=0
//      12 allocate t3 h5 start=0 count=4 at=0x7fffffdff800 flags=0x1
//
// A line has the label, the operation, the task, and the arguments in order. t3 is the task that operation 3 started.
// h5 is the handle that operation 5 brought, h5.1 its second one. #7 is the number 7 used as a handle.

internal import PhysicalMemory

// MARK: Writing

extension TaskName { var text: String { "t\(label)" } }

extension HandleName { var text: String { index == 0 ? "h\(label)" : "h\(label).\(index)" } }

extension HandleArgument {
  var text: String {
    switch self {
    case .name(let name): name.text
    case .number(let number): "#\(number)"
    }
  }
}

func hexadecimal(_ number: UInt64) -> String { "0x" + String(number, radix: 16) }

extension [UInt32] {
  fileprivate var text: String { "[" + map(String.init).joined(separator: ",") + "]" }
}

extension IDArgument {
  var text: String {
    switch self {
    case .from(let start): "from=\(start)"
    case .list(let ids, let address): "ids=\(ids.text) in=\(hexadecimal(address))"
    }
  }
}

extension MessageArgument {
  var text: String { "handles=[\(handles.map(\.text).joined(separator: ","))] moves=\(moves)" }
}

extension ReplyArgument {
  var text: String {
    switch self {
    case .call(let label): "call=\(label)"
    case .number(let number): "number=\(number)"
    }
  }
}

extension PlacementArgument {
  var text: String {
    "below=\(hexadecimal(below)) alignment=\(hexadecimal(alignment)) boundary=\(hexadecimal(boundary)) "
      + "fixed=\(hexadecimal(fixed)) contiguous=\(contiguous) reserved=\(reserved)"
  }
}

extension World {
  package var text: String {
    "world frames=\(frames) reserved=\(reserved) tasks=\(tasks) stock=\(stock) tablesKept=\(tablesKept) "
      + "timeLimit=\(timeLimit) blocks=\(blocks)"
  }
}

extension Operation {
  package var text: String { "\(label) \(action.text)" }
}

extension Action {
  var text: String {
    switch self {
    case .loadImage(let program): "loadImage program=\(program)"
    case .unloadImage(let image): "unloadImage image=\(image)"
    case .start(let image, let guaranteed, let contract, let extra, let around, let keepsMappings):
      "start image=\(image) guaranteed=\(guaranteed) contract=\(contract) extra=\(extra) around=\(around) "
        + "keepsMappings=\(keepsMappings)"
    case .end(let task, let pause): "end \(task.text) pause=\(pause)"
    case .stop(let task, let steps): "stop \(task.text) steps=\(steps)"
    case .pass(let time): "pass microseconds=\(time)"
    case .work(let task, let time): "work \(task.text) microseconds=\(time)"
    case .zeroAhead(let target): "zeroAhead target=\(target)"
    case .releaseClosedSpaces: "releaseClosedSpaces"
    case .takeMachineFrame: "takeMachineFrame"
    case .giveMachineFrame: "giveMachineFrame"
    case .revokeSomeFrame(let random): "revokeSomeFrame random=\(random)"
    case .moveSomeFrame(let random): "moveSomeFrame random=\(random)"
    case .defragment(let steps, let block): "defragmentSteps steps=\(steps) block=\(block)"
    case .readyBlocks(let count): "readyBlocks count=\(count)"
    case .gather(let steps): "gather steps=\(steps)"
    case .promote(let task, let page): "promote \(task.text) page=\(hexadecimal(page))"
    case .task(let task, let call): call.text(task.text)
    }
  }
}

extension Call {
  func text(_ task: String) -> String {
    let (name, arguments) = parts
    return arguments.isEmpty ? "\(name) \(task)" : "\(name) \(task) \(arguments)"
  }

  private var parts: (String, String) {
    func at(_ address: UInt64) -> String { "at=\(hexadecimal(address))" }
    func result(_ address: UInt64) -> String { "result=\(hexadecimal(address))" }
    switch self {
    case .load(let address, let count, let access): return ("load", "\(at(address)) count=\(count) access=\(access)")
    case .store(let address, let word): return ("store", "\(at(address)) word=\(hexadecimal(UInt64(word)))")
    case .read(let address, let count): return ("read", "\(at(address)) count=\(count)")
    case .write(let address, let count, let byte): return ("write", "\(at(address)) count=\(count) byte=\(byte)")
    case .check(let address, let count): return ("check", "\(at(address)) count=\(count)")
    case .createContainer(let address): return ("createContainer", result(address))
    case .destroyContainer(let handle): return ("destroyContainer", handle.text)
    case .allocate(let handle, let start, let count, let address, let flags):
      return ("allocate", "\(handle.text) start=\(start) count=\(count) \(at(address)) flags=\(flags)")
    case .allocatePlaced(let handle, let start, let count, let address, let flags, let placement, let place):
      return (
        "allocatePlaced",
        "\(handle.text) start=\(start) count=\(count) \(at(address)) flags=\(flags) \(placement.text) "
          + "in=\(hexadecimal(place))"
      )
    case .defragment(let handle, let address): return ("defragment", "\(handle.text) \(result(address))")
    case .deallocate(let handle, let start, let count, let address, let flags):
      return ("deallocate", "\(handle.text) start=\(start) count=\(count) \(at(address)) flags=\(flags)")
    case .map(let handle, let start, let count, let address, let flags):
      return ("map", "\(handle.text) start=\(start) count=\(count) \(at(address)) flags=\(flags)")
    case .unmap(let address, let count): return ("unmap", "\(at(address)) count=\(count)")
    case .mapping(let address): return ("mapping", at(address))
    case .sample(let address, let count, let flags, let bits):
      return ("sample", "\(at(address)) count=\(count) flags=\(flags) \(result(bits))")
    case .copy(let source, let from, let destination, let to, let count, let frameError):
      return (
        "copy",
        "\(source.text) \(from.text) to=\(destination.text) \(to.text) count=\(count) "
          + "frameError=\(hexadecimal(frameError))"
      )
    case .releaseData(let handle, let ids, let address):
      return ("releaseData", "\(handle.text) ids=\(ids.text) \(at(address))")
    case .releasePages(let handle, let ids, let address):
      return ("releasePages", "\(handle.text) ids=\(ids.text) \(at(address))")
    case .recoverPages(let handle, let ids, let address, let frameError):
      return (
        "recoverPages", "\(handle.text) ids=\(ids.text) \(at(address)) frameError=\(hexadecimal(frameError))"
      )
    case .expiredPages(let handle, let ids, let address, let target):
      return ("expiredPages", "\(handle.text) ids=\(ids.text) \(at(address)) \(result(target))")
    case .takeReturnRequest: return ("takeReturnRequest", "")
    case .createFilled(let source, let ids, let count, let remote, let address, let weak):
      return (
        "createFilled",
        "\(source.text) \(ids?.text ?? "fresh") count=\(count) remote=\(remote.text) \(result(address)) "
          + "weak=\(hexadecimal(weak))"
      )
    case .share(let handle, let remote, let address):
      return ("share", "\(handle.text) remote=\(remote.text) \(result(address))")
    case .revoke(let handle): return ("revoke", handle.text)
    case .lock(let handle, let time): return ("lock", "\(handle.text) microseconds=\(time)")
    case .unlock(let handle): return ("unlock", handle.text)
    case .pin(let handle, let start, let count, let time, let address):
      return (
        "pin", "\(handle.text) start=\(start) count=\(count) microseconds=\(time) physical=\(hexadecimal(address))"
      )
    case .unpin(let handle, let start, let count): return ("unpin", "\(handle.text) start=\(start) count=\(count)")
    case .beginTransfer(let handle, let start, let count):
      return ("beginTransfer", "\(handle.text) start=\(start) count=\(count)")
    case .endTransfer(let number): return ("endTransfer", "number=\(number)")
    case .createEndpoint(let address): return ("createEndpoint", result(address))
    case .call(let handle, let message, let address, let mayWait):
      return ("call", "\(handle.text) \(message.text) \(at(address)) mayWait=\(mayWait)")
    case .receive(let handle, let address, let mayWait):
      return ("receive", "\(handle.text) \(at(address)) mayWait=\(mayWait)")
    case .reply(let reply, let message, let address): return ("reply", "\(reply.text) \(message.text) \(at(address))")
    case .replyAndReceive(let handle, let reply, let message, let address, let mayWait):
      return (
        "replyAndReceive", "\(handle.text) \(reply.text) \(message.text) \(at(address)) mayWait=\(mayWait)"
      )
    case .wake: return ("wake", "")
    case .stopWaiting: return ("stopWaiting", "")
    case .registerName(let name, let address, let handle):
      return ("registerName", "name=\(name) \(at(address)) \(handle.text)")
    case .lookUpName(let name, let address, let target, let mayWait):
      return ("lookUpName", "name=\(name) \(at(address)) \(result(target)) mayWait=\(mayWait)")
    case .drop(let handle): return ("drop", handle.text)
    case .getControl(let address): return ("getControl", result(address))
    case .getPolicyBuffer(let handle, let address, let target):
      return ("getPolicyBuffer", "\(handle.text) \(at(address)) \(result(target))")
    case .setPolicy(let address, let entry, let isDirect):
      return (
        "setPolicy",
        "\(at(address)) slot=\(entry.slot) guaranteed=\(entry.guaranteed) extra=\(entry.extra) "
          + "swapQuota=\(entry.swapQuota) garbage=\(entry.garbage) direct=\(isDirect)"
      )
    case .policyCommit(let handle): return ("policyCommit", handle.text)
    }
  }
}
