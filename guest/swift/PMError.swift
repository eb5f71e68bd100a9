// The server's errors, as Swift throws them.

import CPhysmem

/// An error of a call to the server.
public struct PMError: Error, Equatable, CustomStringConvertible {
  /// The number in the C interface, never 0.
  public let code: Int32

  private init(_ error: pm_error) { code = Int32(error.rawValue) }
  private init(code: Int32) { self.code = code }

  public static let notPermitted = PMError(PM_EPERM)
  public static let noEntry = PMError(PM_ENOENT)
  public static let exists = PMError(PM_EEXIST)
  public static let noMemory = PMError(PM_ENOMEM)
  public static let contentGone = PMError(PM_ENOEXIST)
  public static let invalid = PMError(PM_EINVAL)
  public static let busy = PMError(PM_EBUSY)
  public static let timedOut = PMError(PM_ETIMEDOUT)
  public static let inputOutput = PMError(PM_EIO)
  public static let noSpace = PMError(PM_ENOSPC)
  public static let badPointer = PMError(PM_EFAULT)
  public static let canceled = PMError(PM_ECANCELED)
  public static let tryAgain = PMError(PM_EAGAIN)

  /// The name in the C interface, such as "PM_EINVAL".
  public var description: String {
    // SAFETY: the C function returns a string literal for every number.
    unsafe String(cString: pm_strerror(code))
  }

  /// The error for a call's result; nil for success.
  static func of(_ result: pm_error_t) -> PMError? { result == 0 ? nil : PMError(code: result) }

  static func check(_ result: pm_error_t) throws(PMError) {
    if let error = of(result) { throw error }
  }
}
