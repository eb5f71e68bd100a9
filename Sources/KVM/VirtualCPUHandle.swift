// The part of a vCPU that other threads may use: the kick, and whether it is inside KVM.

internal import CKVM
internal import Glibc
import Synchronization

// SAFETY: owns the mapping of the run area, so the pointer is valid while any thread can kick. Other threads write only
// `immediate_exit` through it, atomically; the kernel reads it at KVM_RUN.
@safe
public final class VirtualCPUHandle: Sendable {
  nonisolated(unsafe) let run: UnsafeMutablePointer<kvm_run>
  private let byteCount: Int
  /// The thread that runs this vCPU. Locked during a signal, so that it cannot end meanwhile.
  private let thread = Mutex<pthread_t?>(nil)
  let visits: VCPUVisits

  init(run: UnsafeMutablePointer<kvm_run>, byteCount: Int, departures: VCPUDepartures) {
    visits = VCPUVisits(departures)
    unsafe self.run = run
    self.byteCount = byteCount
  }

  deinit { unsafe munmap(run, byteCount) }

  /// Makes the calling thread run this vCPU from now on. Earlier kicks take effect at its first KVM_RUN.
  /// Unblocks the kick's signal: threads of a task pool block
  /// signals, and threads that they create inherit the mask.
  public func attachThread() {
    var signals = sigset_t()
    unsafe sigemptyset(&signals)
    unsafe sigaddset(&signals, SIGUSR1)
    unsafe pthread_sigmask(SIG_UNBLOCK, &signals, nil)
    thread.withLock { $0 = pthread_self() }
  }

  /// Must be called before the thread ends.
  public func detachThread() { thread.withLock { $0 = nil } }

  /// Makes KVM_RUN return `.interrupted`, now or at the next call. Kicks coalesce: the receiver clears
  /// the flag first and then checks its mailbox.
  public func kick() {
    setImmediateExit(true)
    thread.withLock { thread in
      if let thread { pthread_kill(thread, SIGUSR1) }
    }
  }

  /// The current visit to KVM, if any.
  public var visit: VCPUVisit? { visits.current }

  /// Ends a visit soon, and counts its end as a departure of the machine; has no effect if it is over.
  public func hurry(_ visit: VCPUVisit) { if visits.await(visit) { kick() } }

  func setImmediateExit(_ wanted: Bool) { unsafe ckvm_set_immediate_exit(run, wanted ? 1 : 0) }

  /// Installs the kick's handler, which does nothing and does not restart system calls. Once per process.
  public static func installKickHandler() {
    var action = sigaction()
    unsafe action.__sigaction_handler.sa_handler = { _ in }
    unsafe sigemptyset(&action.sa_mask)
    unsafe sigaction(SIGUSR1, &action, nil)
  }
}
