// The part of a vCPU that other threads may touch: the kick.

internal import CKVM
internal import Glibc
import Synchronization

// SAFETY: owns the mapping of the run area, so the pointer is good as long as anyone can kick. The only thing
// written through it by other threads is `immediate_exit`, atomically; the kernel reads it at KVM_RUN.
@safe
public final class VirtualCPUHandle: Sendable {
  nonisolated(unsafe) let run: UnsafeMutablePointer<kvm_run>
  private let byteCount: Int
  /// The pthread_t that runs this vCPU; 0: none does.
  private let thread = Atomic<UInt>(0)

  init(run: UnsafeMutablePointer<kvm_run>, byteCount: Int) {
    unsafe self.run = run
    self.byteCount = byteCount
  }

  deinit { unsafe munmap(run, byteCount) }

  /// Says that the calling thread runs this vCPU from now on. Kicks before this are seen at its first KVM_RUN.
  /// The kick's signal reaches the thread from then on, whatever mask its creator had: threads of a task pool block
  /// signals, and what they create inherits that.
  public func attachThread() {
    var signals = sigset_t()
    unsafe sigemptyset(&signals)
    unsafe sigaddset(&signals, SIGUSR1)
    unsafe pthread_sigmask(SIG_UNBLOCK, &signals, nil)
    thread.store(UInt(pthread_self()), ordering: .sequentiallyConsistent)
  }

  /// Must be called before the thread ends.
  public func detachThread() { thread.store(0, ordering: .sequentiallyConsistent) }

  /// Makes KVM_RUN return `.interrupted`, now or the next time it is called. Kicks coalesce: the receiver clears
  /// the flag first and looks at its mailbox afterwards.
  public func kick() {
    setImmediateExit(true)
    let target = thread.load(ordering: .sequentiallyConsistent)
    if target != 0 { pthread_kill(pthread_t(target), SIGUSR1) }
  }

  func setImmediateExit(_ wanted: Bool) { unsafe ckvm_set_immediate_exit(run, wanted ? 1 : 0) }

  /// A kick needs a handler that does nothing and does not restart system calls. Once a process.
  public static func installKickHandler() {
    var action = sigaction()
    unsafe action.__sigaction_handler.sa_handler = { _ in }
    unsafe sigemptyset(&action.sa_mask)
    unsafe sigaction(SIGUSR1, &action, nil)
  }
}
