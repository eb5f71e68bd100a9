// The part of a vCPU that other threads may touch: the kick, and whether it is inside KVM.

internal import CKVM
internal import Glibc
import Synchronization

// SAFETY: owns the mapping of the run area, so the pointer is good as long as anyone can kick. The only thing
// written through it by other threads is `immediate_exit`, atomically; the kernel reads it at KVM_RUN.
@safe
public final class VirtualCPUHandle: Sendable {
  nonisolated(unsafe) let run: UnsafeMutablePointer<kvm_run>
  private let byteCount: Int
  /// The thread that runs this vCPU. Locked while it is signalled, so that it cannot be gone by then.
  private let thread = Mutex<pthread_t?>(nil)
  let visits: VCPUVisits

  init(run: UnsafeMutablePointer<kvm_run>, byteCount: Int, departures: VCPUDepartures) {
    visits = VCPUVisits(departures)
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
    thread.withLock { $0 = pthread_self() }
  }

  /// Must be called before the thread ends.
  public func detachThread() { thread.withLock { $0 = nil } }

  /// Makes KVM_RUN return `.interrupted`, now or the next time it is called. Kicks coalesce: the receiver clears
  /// the flag first and looks at its mailbox afterwards.
  public func kick() {
    setImmediateExit(true)
    thread.withLock { thread in
      if let thread { pthread_kill(thread, SIGUSR1) }
    }
  }

  /// The visit to KVM that is under way.
  public var visit: VCPUVisit? { visits.current }

  /// Makes a visit end soon, and its end one of the machine's departures; nothing, if it is over.
  public func hurry(_ visit: VCPUVisit) { if visits.await(visit) { kick() } }

  func setImmediateExit(_ wanted: Bool) { unsafe ckvm_set_immediate_exit(run, wanted ? 1 : 0) }

  /// A kick needs a handler that does nothing and does not restart system calls. Once a process.
  public static func installKickHandler() {
    var action = sigaction()
    unsafe action.__sigaction_handler.sa_handler = { _ in }
    unsafe sigemptyset(&action.sa_mask)
    unsafe sigaction(SIGUSR1, &action, nil)
  }
}
