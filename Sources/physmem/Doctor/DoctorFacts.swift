// The doctor's sources of facts: files of /proc and /sys, and /dev/kvm. Tests replace them.

internal import KVM
internal import SystemPackage

/// A machine to examine.
struct DoctorFacts {
  /// The text of a file, at most its first 64 KiB; nil if it cannot be read.
  var text: (_ path: String) -> String?
  /// Whether the file or directory exists.
  var exists: (_ path: String) -> Bool
  /// Opens /dev/kvm.
  var openKVM: () -> Result<KVMFacts, Errno>
  /// Whether QEMU translates the processor's instructions.
  var isTranslated = false
}

/// Facts from an open /dev/kvm.
struct KVMFacts {
  var apiVersion: Int
  /// The value of KVM_CHECK_EXTENSION.
  var capability: (Capability) -> Int
  /// Creates and destroys a virtual machine with one vCPU; nil if that works, else the call that failed and its errno.
  var tryMachine: () -> (call: String, errno: Errno)?
  /// State of the host's processor that tasks see; nil if no task could check.
  var shown: () -> [String]? = { [] }
}

extension DoctorFacts {
  /// The current machine.
  static var live: DoctorFacts {
    DoctorFacts(
      text: { try? readText($0) },
      exists: { path in
        guard let file = try? FileDescriptor.open(FilePath(path), .readOnly, options: .closeOnExec) else {
          return false
        }
        try? file.close()
        return true
      },
      openKVM: {
        do throws(Errno) { return .success(KVMFacts(try KVMDevice())) } catch { return .failure(error) }
      },
      isTranslated: HostProcessor.isEmulatedByQEMU
    )
  }

  private static func readText(_ path: String) throws -> String {
    let file = try FileDescriptor.open(FilePath(path), .readOnly, options: .closeOnExec)
    return try file.closeAfter {
      var bytes = [UInt8](repeating: 0, count: 64 << 10)
      var count = 0
      while count < bytes.count {
        // SAFETY: the buffer is the array's own, and is not used after the closure.
        let read = try unsafe bytes.withUnsafeMutableBytes {
          try unsafe file.read(into: UnsafeMutableRawBufferPointer(rebasing: $0[count...]))
        }
        if read == 0 { break }
        count += read
      }
      return String(decoding: bytes[..<count], as: UTF8.self)
    }
  }
}

extension KVMFacts {
  init(_ device: KVMDevice) {
    apiVersion = device.apiVersion
    capability = { device.capability($0) }
    shown = shownToTasks
    tryMachine = {
      do throws(KVMError) {
        _ = try VirtualCPU(VirtualMachine(device), index: 0)
        return nil
      } catch { return (error.call, error.errno) }
    }
  }
}

/// Reading the kernel's text formats.
extension DoctorFacts {
  /// A file that contains one number.
  func number(_ path: String) -> Int? {
    text(path).flatMap { Int($0.split(whereSeparator: \.isWhitespace).first ?? "") }
  }

  /// The value in the first line "key: value".
  func value(of key: String, in path: String) -> String? {
    for line in text(path)?.split(separator: "\n") ?? [] {
      let parts = line.split(separator: ":", maxSplits: 1)
      if parts.count == 2, trimmed(parts[0]) == key { return trimmed(parts[1]) }
    }
    return nil
  }

  /// The choice in brackets, as in "always [madvise] never".
  func choice(_ path: String) -> String? {
    let text = text(path)?.drop { $0 != "[" }.dropFirst()
    return text.flatMap { text in text.contains("]") ? String(text.prefix { $0 != "]" }) : nil }
  }

  /// A resource limit of this process, as in getrlimit(2): `Int.max` for "unlimited".
  func limit(_ name: String) -> (soft: Int, hard: Int)? {
    for line in text("/proc/self/limits")?.split(separator: "\n") ?? [] where line.hasPrefix(name + " ") {
      let fields = line.dropFirst(name.count).split(separator: " ")
      let values = fields.prefix(2).map { $0 == "unlimited" ? Int.max : Int($0) }
      if values.count == 2, let soft = values[0], let hard = values[1] { return (soft, hard) }
    }
    return nil
  }

  /// The value of a limit of this process's control group; nil if there is none. The first path is for
  /// control groups version 2, the second for the version 1 controller of that name.
  func groupLimit(_ unified: String, controller: String, _ file: String) -> Int? {
    var limits: [Int] = []
    for line in text("/proc/self/cgroup")?.split(separator: "\n") ?? [] {
      let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
      guard fields.count == 3 else { continue }
      // In a container the path may be the host's, while the group is mounted as the root.
      for group in [fields[2] == "/" ? "" : String(fields[2]), ""] {
        if fields[1].isEmpty { limits += [number("/sys/fs/cgroup\(group)/\(unified)")].compactMap(\.self) }
        if fields[1].split(separator: ",").contains(Substring(controller)) {
          limits += [number("/sys/fs/cgroup/\(controller)\(group)/\(file)")].compactMap(\.self)
        }
      }
    }
    return limits.min()
  }

  private func trimmed(_ text: Substring) -> String {
    let start = text.drop(while: \.isWhitespace)
    guard let last = start.lastIndex(where: { !$0.isWhitespace }) else { return "" }
    return String(start[...last])
  }
}
