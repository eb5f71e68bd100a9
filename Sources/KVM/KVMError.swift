// The error of this module: the call that failed, and its errno.

public import SystemPackage

public struct KVMError: Error, CustomStringConvertible {
  /// The name of the ioctl or system call.
  public let call: String
  public let errno: Errno

  public var description: String { "\(call): \(errno)" }
}

/// Converts a shim's result to a value or a thrown error.
@discardableResult
@inline(__always)
func check(_ result: Int32, _ call: @autoclosure () -> String) throws(KVMError) -> Int32 {
  if result < 0 { throw KVMError(call: call(), errno: Errno(rawValue: -result)) }
  return result
}
