// Standard output and standard error: unbuffered, and written completely. The command exits by `_exit`, which flushes
// no buffer; and a task's output is visible as soon as its call returns.

internal import Glibc
internal import Machine

enum StandardStream: Int32, Sendable {
  case output = 1
  case error = 2

  /// Whether it is a terminal.
  var isTerminal: Bool { isatty(rawValue) == 1 }

  func write(_ text: String) { write(Array(text.utf8)) }

  /// Writes all of it. If standard output cannot be written the process ends: silently if its reader is gone,
  /// else with a message. Errors of standard error are ignored.
  func write(_ bytes: [UInt8]) {
    // SAFETY: the buffer is the array's; its bytes from `done` on are passed on, and it is not used after the closure.
    unsafe bytes.withUnsafeBytes { buffer in
      var done = 0
      while done < buffer.count {
        let rest = unsafe UnsafeRawBufferPointer(rebasing: buffer[done...])
        let count = unsafe Glibc.write(rawValue, rest.baseAddress, rest.count)
        if count >= 0 {
          done += count
        } else if errno == EAGAIN {
          waitUntilWritable()
        } else if errno != EINTR {
          return fail(errno)
        }
      }
    }
  }

  /// The stream may be a pipe or terminal that another process has set to O_NONBLOCK.
  private func waitUntilWritable() {
    var entry = pollfd(fd: rawValue, events: Int16(POLLOUT), revents: 0)
    // SAFETY: one entry, which outlives the call.
    _ = unsafe poll(&entry, 1, -1)
  }

  private func fail(_ code: Int32) {
    guard self == .output else { return }
    // As if by the signal, which the parent may have set to be ignored.
    if code == EPIPE { _exit(128 + SIGPIPE) }
    // SAFETY: the text is a constant of the C library.
    let reason = unsafe strerror(code).map { unsafe String(cString: $0) } ?? "error \(code)"
    complain("standard output cannot be written (\(reason)): send it to a file or pipe that takes it")
    _exit(ExitStatus.failure)
  }

  /// Opens /dev/null for closed standard streams. Otherwise the next file opened, such as /dev/kvm, would take their
  /// place and be written to; it is opened for reading only, so that writes fail as they should.
  static func ensureOpen() {
    for descriptor in 0..<Int32(3) where fcntl(descriptor, F_GETFD) == -1 && errno == EBADF {
      // SAFETY: the path is a literal.
      _ = unsafe open("/dev/null", O_RDONLY)
    }
  }
}

/// Prints an error in one sentence without its full stop. Text from outside cannot break the line.
func complain(_ sentence: String) {
  StandardStream.error.write("physmem: \(printableText(Array(sentence.utf8)[...], limit: 4096))\n")
}
