// Errors before a task runs. Each description is one sentence: the cause, and the remedy if one is known.

public import KVM
public import SystemPackage

/// Why a machine cannot be made, a program not loaded, or a task not launched.
public enum MachineError: Error, CustomStringConvertible {
  /// /dev/kvm could not be opened.
  case noKVM(Errno)
  /// KVM lacks a capability; its name.
  case missingCapability(String)
  /// KVM failed after it had been opened.
  case kvm(KVMError)
  /// A system call failed; what it was for.
  case system(String, Errno)
  /// The host refuses this many bytes of address space for the server's tables. `limit`: the process's RLIMIT_AS in
  /// bytes; nil: unlimited.
  case noAddressSpace(bytes: Int, limit: Int?)
  /// The file is not an image that this machine can run.
  case badImage(name: String, ELFError)
  /// The pool is too small for the program. In frames.
  case tooSmall(name: String, needed: Int, available: Int)
  /// Enough frames are unclaimed, but tasks have borrowed them as extra frames. In frames.
  case lent(name: String, needed: Int, free: Int)
  /// No frame is left for this purpose.
  case noMemory(String)
  /// The segments overlap each other or the task's stack.
  case badLayout(name: String)
  /// The machine holds the maximum number of programs.
  case tooManyPrograms(Int)
  /// The arguments are longer than this many bytes.
  case argumentsTooLong(limit: Int)
  /// The machine runs the maximum number of tasks.
  case tooManyTasks(Int)
  /// The guarantee exceeds the frames not claimed yet. In frames.
  case overcommitted(guaranteed: Int, available: Int)
  /// The task may not use extra frames, and its image and stack need more than its guarantee. In frames.
  case guaranteeTooSmall(name: String, needed: Int, guaranteed: Int)
  /// The machine was shut down before or during the launch.
  case shutDown

  /// One sentence for a terminal.
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
      "the host does not grant \((bytes + 1 << 20 - 1) >> 20) MiB of address space for a table: use a smaller --memory"
    case .badImage(let name, let error): "\(name): \(error)"
    case .tooSmall(let name, let needed, let available):
      "\(name) needs \(needed) frames and the pool has \(available) left: use a larger --memory"
    case .lent(let name, let needed, let free):
      "\(name) needs \(needed) frames, and tasks have borrowed all but \(free): load it before tasks borrow frames"
    case .noMemory(let what): "no frame is left for \(what): use a larger --memory"
    case .badLayout(let name):
      "\(name) has segments that overlap each other or the stack: link it with scripts/guest-cc"
    case .tooManyPrograms(let limit): "\(limit) programs are loaded, the maximum for a machine"
    case .argumentsTooLong(let limit): "the arguments are longer than \(limit) bytes: pass fewer or shorter ones"
    case .tooManyTasks(let limit): "\(limit) tasks are running, the maximum for a machine"
    case .overcommitted(let guaranteed, let available):
      "\(guaranteed) frames cannot be guaranteed, only \(available) are not claimed yet: use a larger --memory"
    case .guaranteeTooSmall(let name, let needed, let guaranteed):
      "\(name) needs \(needed) frames to start and is limited to \(guaranteed): use a larger --guaranteed, or --extra"
    case .shutDown: "the machine was shut down: make another one"
    }
  }
}
