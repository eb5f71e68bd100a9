// When vCPUs are inside KVM, for who must know that one has left: KVM carries out instructions itself, by translating an
// address and then using the frame, and until it returns from KVM_RUN it may be between the two.

internal import CKVM
internal import Glibc
import Synchronization

/// One stay inside KVM of one vCPU.
public struct VCPUVisit: Equatable, Sendable, BitwiseCopyable {
  public let rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }
}

/// The visits of one vCPU, one after the other. Written by its thread, but for one bit.
final class VCPUVisits: Sendable {
  /// Bit 0: inside. Bit 1: somebody waits for the visit's end. Above: how many visits there have been.
  private let word = Atomic<UInt64>(0)
  private let departures: VCPUDepartures

  private static let inside: UInt64 = 1
  private static let isAwaited: UInt64 = 2

  init(_ departures: VCPUDepartures) { self.departures = departures }

  /// Before KVM_RUN. Whoever does not see the visit has changed the page tables before KVM looks at them.
  @inline(__always)
  func begin() {
    word.store(word.load(ordering: .relaxed) &+ 4 | Self.inside, ordering: .sequentiallyConsistent)
  }

  /// After KVM_RUN.
  @inline(__always)
  func end() {
    let outside = word.load(ordering: .relaxed) & ~(Self.inside | Self.isAwaited)
    if word.exchange(outside, ordering: .sequentiallyConsistent) & Self.isAwaited != 0 { departures.add() }
  }

  /// The visit under way.
  var current: VCPUVisit? {
    let word = word.load(ordering: .sequentiallyConsistent)
    return word & Self.inside == 0 ? nil : VCPUVisit(rawValue: word & ~Self.isAwaited)
  }

  /// Has the end of a visit counted among the departures. False: it is over.
  func await(_ visit: VCPUVisit) -> Bool {
    let (exchanged, original) = word.compareExchange(
      expected: visit.rawValue, desired: visit.rawValue | Self.isAwaited, ordering: .sequentiallyConsistent)
    return exchanged || original == visit.rawValue | Self.isAwaited
  }
}

/// The ends of visits that somebody waited for.
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

  /// How many there have been.
  public var count: UInt64 { number.load(ordering: .sequentiallyConsistent) }

  func add() {
    unsafe pthread_mutex_lock(&storage.pointee.mutex)
    number.wrappingAdd(1, ordering: .sequentiallyConsistent)
    unsafe pthread_cond_broadcast(&storage.pointee.condition)
    unsafe pthread_mutex_unlock(&storage.pointee.mutex)
  }

  /// Waits until there have been more than `count`.
  public func wait(after count: UInt64) {
    unsafe pthread_mutex_lock(&storage.pointee.mutex)
    while number.load(ordering: .relaxed) == count {
      unsafe pthread_cond_wait(&storage.pointee.condition, &storage.pointee.mutex)
    }
    unsafe pthread_mutex_unlock(&storage.pointee.mutex)
  }
}
