// The one error of this module: which call on which KVM descriptor failed, and why.

public import SystemPackage

public struct KVMError: Error, CustomStringConvertible {
  /// The ioctl's name or the system call's.
  public let call: String
  public let errno: Errno

  public var description: String { "\(call): \(errno)" }
}

/// Turns a shim's result into a value or a thrown error.
@discardableResult
@inline(__always)
func check(_ result: Int32, _ call: @autoclosure () -> String) throws(KVMError) -> Int32 {
  if result < 0 { throw KVMError(call: call(), errno: Errno(rawValue: -result)) }
  return result
}
