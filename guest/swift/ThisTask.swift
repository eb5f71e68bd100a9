// The current task: its arguments, frame counts, clock, end and handlers.

import CPhysmem

public enum ThisTask {
  /// The task's arguments; the first is its name.
  public static var arguments: [String] {
    // SAFETY: the library keeps the arguments passed at the start, `count` strings that stay valid.
    (0..<Int(pm_argument_count())).map { unsafe String(cString: pm_argument(Int32($0))) }
  }

  /// Flushes print's buffer and ends the task; the low 8 bits of `status` are its exit status.
  public static func exit(_ status: Int32) -> Never { pm_exit(status) }

  /// The task's id and its frame counts.
  public static func info() throws(PMError) -> pm_task_info {
    var info = pm_task_info()
    // SAFETY: the pointer is used within the call only.
    try PMError.check(unsafe pm_get_task_info(&info))
    return info
  }

  /// The host's monotonic clock in microseconds.
  public static var clock: UInt64 { pm_clock_us() }

  /// Returns after at least that many microseconds.
  public static func sleep(microseconds: UInt64) { pm_sleep(microseconds) }

  /// Sends bytes to the console at once, ahead of text that print still buffers.
  public static func write(_ bytes: Span<UInt8>) throws(PMError) {
    // SAFETY: the pointer is used within the call only.
    let result = unsafe bytes.withUnsafeBufferPointer { unsafe pm_write($0.baseAddress, $0.count) }
    try PMError.check(result)
  }

  /// Sets the task's fault handler, nil for none (R37). It is called on its own stack for each fault that the
  /// server does not serve, and returns true to retry the access, false to let the task die of the fault.
  public static func onFault(_ handler: ((Fault) -> Bool)?) throws(PMError) {
    unsafe faultHandler = handler
    guard handler != nil else { return try PMError.check(pm_on_fault(nil)) }
    // SAFETY: the library passes a fault that is valid for the call.
    let result = unsafe pm_on_fault { fault in
      guard let fault = unsafe fault?.pointee, let handler = unsafe faultHandler else { return 1 }
      return handler(Fault(fault)) ? 0 : 1
    }
    try PMError.check(result)
  }

  /// Sets the handler that is called when the server wants frames back, nil for none (R28). It may interrupt the task
  /// anywhere, and must free the number of frames it is given before the deadline. It must not
  /// allocate memory: it may have interrupted an allocation.
  public static func onReturnPages(_ handler: ((Int) -> Void)?) throws(PMError) {
    guard handler != nil else {
      try PMError.check(pm_on_return_pages(nil))
      return unsafe returnHandler = nil
    }
    unsafe returnHandler = handler
    try PMError.check(pm_on_return_pages { count in unsafe returnHandler?(Int(count)) })
  }
}

/// An access that the server does not serve.
public struct Fault {
  /// The byte that was accessed.
  public let address: UInt
  /// The instruction that accessed it.
  public let instruction: UInt
  /// One of `read`, `write` and `execute`.
  public let access: Rights
  /// Whether the page is mapped, but not for this access.
  public let isPresent: Bool

  init(_ fault: pm_fault) {
    address = UInt(fault.address)
    instruction = UInt(fault.rip)
    access = Rights(rawValue: fault.access)
    isPresent = fault.present != 0
  }
}

// SAFETY: a task has one thread, and its fault handler does not interrupt itself.
nonisolated(unsafe) private var faultHandler: ((Fault) -> Bool)?
// SAFETY: written only while the server has no handler to call, or the old one is valid.
nonisolated(unsafe) private var returnHandler: ((Int) -> Void)?
