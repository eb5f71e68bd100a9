// What can go wrong before a task runs. One sentence each: what is wrong, and what to do where that is known.

public import KVM
public import SystemPackage

public enum MachineError: Error, CustomStringConvertible {
  /// /dev/kvm could not be opened.
  case noKVM(Errno)
  case missingCapability(String)
  case kvm(KVMError)
  case system(String, Errno)
  /// The host refuses so many bytes of address space for the server's tables. `limit`: what a process may have, where that
  /// is limited.
  case noAddressSpace(bytes: Int, limit: Int?)
  /// A file that is not an image this machine can run.
  case badImage(name: String, ELFError)
  /// In frames.
  case tooSmall(name: String, needed: Int, available: Int)
  /// All that the program needs is there, but borrowed by tasks. In frames.
  case lent(name: String, needed: Int, free: Int)
  case noMemory(String)
  /// Its segments overlap, or lie where a task's stack is.
  case badLayout(name: String)
  case tooManyPrograms(Int)
  case argumentsTooLong(limit: Int)
  case tooManyTasks(Int)
  case overcommitted(guaranteed: Int, available: Int)
  /// The task may have no more frames than are guaranteed to it, and begins with more.
  case guaranteeTooSmall(name: String, needed: Int, guaranteed: Int)
  /// A task was launched after, or while, the machine was shut down.
  case shutDown

  public var description: String {
    switch self {
    case .noKVM(let errno):
      "/dev/kvm cannot be opened (\(errno)): run `physmem doctor` to see what this machine lacks"
    case .missingCapability(let name):
      "this kernel's KVM lacks \(name): run `physmem doctor` to see what this machine lacks"
    case .kvm(let error): "KVM failed: \(error)"
    case .system(let call, let errno): "\(call) failed (\(errno)): run `physmem doctor` to see this machine's limits"
    case .noAddressSpace(let bytes, let limit?):
      "the limit on address space, \(limit >> 20) MiB, leaves no room for the \((bytes + 1 << 20 - 1) >> 20) MiB of a "
        + "table: raise it (ulimit -v), or use a smaller --memory"
    case .noAddressSpace(let bytes, nil):
      "the host refuses \((bytes + 1 << 20 - 1) >> 20) MiB of address space for a table: use a smaller --memory"
    case .badImage(let name, let error): "\(name): \(error)"
    case .tooSmall(let name, let needed, let available):
      "\(name) needs \(needed) frames and the pool has \(available) left: use a larger --memory"
    case .lent(let name, let needed, let free):
      "\(name) needs \(needed) frames, and tasks have borrowed all but \(free): load it before others borrow"
    case .noMemory(let what): "no frame is left for \(what): use a larger --memory"
    case .badLayout(let name):
      "\(name) has segments that overlap or lie where the stack is: link it with scripts/guest-cc"
    case .tooManyPrograms(let limit): "\(limit) programs are loaded already, which is the most a machine can have"
    case .argumentsTooLong(let limit): "the arguments are longer than \(limit) bytes: pass fewer or shorter ones"
    case .tooManyTasks(let limit): "\(limit) tasks run already, which is the most a machine can have"
    case .overcommitted(let guaranteed, let available):
      "\(guaranteed) frames cannot be guaranteed, only \(available) are not claimed yet: use a larger --memory"
    case .guaranteeTooSmall(let name, let needed, let guaranteed):
      "\(name) begins with \(needed) frames and is to have no more than \(guaranteed): use a larger --guaranteed, or --extra"
    case .shutDown: "the machine was shut down: make another one"
    }
  }
}
