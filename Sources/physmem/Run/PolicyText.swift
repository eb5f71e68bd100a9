// The text that `physmem run --policy FILE` passes to the policy server, which parses it.

internal import SystemPackage

struct PolicyText {
  let text: String

  /// The text is an argument of a task, and arguments are on its stack.
  static let mostBytes = 60 << 10

  init(path: OutsideName) throws(CommandFailure) {
    var bytes: [UInt8]
    do {
      let stat = try path.path.stat()
      guard stat.type == .regular else {
        throw CommandFailure.usage(
          "\(path): is not a regular file: name a policy's file (see docs/reference/policy.md)")
      }
      guard stat.size <= Self.mostBytes else {
        throw CommandFailure.usage("\(path): has \(stat.size) bytes: a policy may have \(Self.mostBytes)")
      }
      let file = try FileDescriptor.open(path.path, .readOnly, options: .closeOnExec)
      bytes = try file.closeAfter { try TaskFile.readBytes(file, most: Self.mostBytes) }
    } catch let failure as CommandFailure {
      throw failure
    } catch {
      throw .usage("\(path): cannot be read (\(error)): name a policy's file (see docs/reference/policy.md)")
    }
    // Editors on other systems may write a byte order mark, which is not part of the text.
    let mark: [UInt8] = [0xef, 0xbb, 0xbf]
    if bytes.starts(with: mark) { bytes.removeFirst(mark.count) }
    guard !bytes.contains(0), let text = String(validating: bytes, as: UTF8.self) else {
      throw .usage("\(path): is not text: name a policy's file (see docs/reference/policy.md)")
    }
    self.text = text
  }
}
