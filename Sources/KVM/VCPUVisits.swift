// Tracks when vCPUs are inside KVM_RUN. KVM emulates instructions by translating an
// address and then using the frame; until it returns from KVM_RUN it may be between the two.

internal import CKVM
internal import Glibc
import Synchronization

/// One stay of one vCPU inside KVM.
public struct VCPUVisit: Equatable, Sendable, BitwiseCopyable {
  public let rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }
}

/// The visits of one vCPU, one after the other. Only its thread writes them, except for one bit.
final class VCPUVisits: Sendable {
  /// Bit 0: inside. Bit 1: a thread waits for the visit's end. Above: the number of visits.
  private let word = Atomic<UInt64>(0)
  private let departures: VCPUDepartures

  private static let inside: UInt64 = 1
  private static let isAwaited: UInt64 = 2

  init(_ departures: VCPUDepartures) { self.departures = departures }

  /// Call before KVM_RUN. A thread that does not see this visit changed the page tables before KVM reads them.
  @inline(__always)
  func begin() {
    word.store(word.load(ordering: .relaxed) &+ 4 | Self.inside, ordering: .sequentiallyConsistent)
  }

  /// Call after KVM_RUN.
  @inline(__always)
  func end() {
    let outside = word.load(ordering: .relaxed) & ~(Self.inside | Self.isAwaited)
    if word.exchange(outside, ordering: .sequentiallyConsistent) & Self.isAwaited != 0 { departures.add() }
  }

  /// The current visit, if any.
  var current: VCPUVisit? {
    let word = word.load(ordering: .sequentiallyConsistent)
    return word & Self.inside == 0 ? nil : VCPUVisit(rawValue: word & ~Self.isAwaited)
  }

  /// Requests that the visit's end counts as a departure. Returns false if it is over already.
  func await(_ visit: VCPUVisit) -> Bool {
    let (exchanged, original) = word.compareExchange(
      expected: visit.rawValue, desired: visit.rawValue | Self.isAwaited, ordering: .sequentiallyConsistent)
    return exchanged || original == visit.rawValue | Self.isAwaited
  }
}

/// Counts the ends of visits that a thread waits for.
// SAFETY: one allocation that lives as long as the object and never moves.
@safe
public final class VCPUDepartures: Sendable {
  @safe
  private struct Storage {
    var mutex = unsafe pthread_mutex_t()
    var condition = pthread_cond_t()
  }

  private let number = Atomic<UInt64>(0)
  nonisolated(unsafe) private let storage: UnsafeMutablePointer<Storage>

  init() {
    unsafe storage = .allocate(capacity: 1)
    unsafe storage.initialize(to: Storage())
    unsafe pthread_mutex_init(&storage.pointee.mutex, nil)
    unsafe pthread_cond_init(&storage.pointee.condition, nil)
  }

  deinit {
    unsafe pthread_cond_destroy(&storage.pointee.condition)
    unsafe pthread_mutex_destroy(&storage.pointee.mutex)
    unsafe storage.deallocate()
  }

  /// The number so far.
  public var count: UInt64 { number.load(ordering: .sequentiallyConsistent) }

  func add() {
    unsafe pthread_mutex_lock(&storage.pointee.mutex)
    number.wrappingAdd(1, ordering: .sequentiallyConsistent)
    unsafe pthread_cond_broadcast(&storage.pointee.condition)
    unsafe pthread_mutex_unlock(&storage.pointee.mutex)
  }

  /// Waits until the number exceeds `count`.
  public func wait(after count: UInt64) {
    unsafe pthread_mutex_lock(&storage.pointee.mutex)
    while number.load(ordering: .relaxed) == count {
      unsafe pthread_cond_wait(&storage.pointee.condition, &storage.pointee.mutex)
    }
    unsafe pthread_mutex_unlock(&storage.pointee.mutex)
  }
}
