// A gate at which one thread waits until another opens it, or until a deadline. An opening is remembered until the next
// wait; openings coalesce.

internal import Glibc
import Synchronization

/// The host's monotonic clock, in nanoseconds.
@inline(__always)
package func monotonicNanoseconds() -> UInt64 {
  var time = timespec()
  unsafe clock_gettime(CLOCK_MONOTONIC, &time)
  return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

// SAFETY: one allocation that lives as long as the object and never moves.
@safe
final class WaitGate: Sendable {
  @safe
  private struct Storage {
    var mutex = unsafe pthread_mutex_t()
    var condition = pthread_cond_t()
  }

  private let isOpen = Atomic<Bool>(false)
  private let sleepers = Atomic<Int>(0)
  nonisolated(unsafe) private let storage: UnsafeMutablePointer<Storage>

  init() {
    unsafe storage = .allocate(capacity: 1)
    unsafe storage.initialize(to: Storage())
    var attributes = pthread_condattr_t()
    unsafe pthread_condattr_init(&attributes)
    unsafe pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
    unsafe pthread_mutex_init(&storage.pointee.mutex, nil)
    unsafe pthread_cond_init(&storage.pointee.condition, &attributes)
    unsafe pthread_condattr_destroy(&attributes)
  }

  deinit {
    unsafe pthread_cond_destroy(&storage.pointee.condition)
    unsafe pthread_mutex_destroy(&storage.pointee.mutex)
    unsafe storage.deallocate()
  }

  func open() {
    isOpen.store(true, ordering: .sequentiallyConsistent)
    // A thread about to sleep counts itself before its last look at the gate, so one of the two threads sees the other.
    guard sleepers.load(ordering: .sequentiallyConsistent) > 0 else { return }
    unsafe pthread_mutex_lock(&storage.pointee.mutex)
    unsafe pthread_cond_signal(&storage.pointee.condition)
    unsafe pthread_mutex_unlock(&storage.pointee.mutex)
  }

  /// Closes the gate if it is open.
  /// - Returns: whether it was open.
  @inline(__always)
  func pass() -> Bool {
    isOpen.load(ordering: .relaxed) && isOpen.exchange(false, ordering: .sequentiallyConsistent)
  }

  /// Waits until the gate is opened, then closes it.
  /// - Parameter deadline: nanoseconds of the monotonic clock; nil: none.
  /// - Returns: false if the deadline came first.
  @discardableResult
  func wait(until deadline: UInt64? = nil) -> Bool {
    if pass() { return true }
    unsafe pthread_mutex_lock(&storage.pointee.mutex)
    sleepers.wrappingAdd(1, ordering: .sequentiallyConsistent)
    defer {
      sleepers.wrappingSubtract(1, ordering: .sequentiallyConsistent)
      unsafe pthread_mutex_unlock(&storage.pointee.mutex)
    }
    while !isOpen.exchange(false, ordering: .sequentiallyConsistent) {
      guard let deadline else {
        unsafe pthread_cond_wait(&storage.pointee.condition, &storage.pointee.mutex)
        continue
      }
      var time = timespec()
      time.tv_sec = Int(min(deadline / 1_000_000_000, UInt64(Int32.max)))
      time.tv_nsec = Int(deadline % 1_000_000_000)
      if unsafe pthread_cond_timedwait(&storage.pointee.condition, &storage.pointee.mutex, &time) == ETIMEDOUT {
        return isOpen.exchange(false, ordering: .sequentiallyConsistent)
      }
    }
    return true
  }
}
