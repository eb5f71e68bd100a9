// Standard output and standard error: unbuffered, and written in whole. The command leaves by `_exit`, so nothing may
// wait in a buffer; and what a task writes is there as soon as its call returns.

internal import Glibc
internal import Machine

enum StandardStream: Int32, Sendable {
  case output = 1
  case error = 2

  /// Whether a person may be looking.
  var isTerminal: Bool { isatty(rawValue) == 1 }

  func write(_ text: String) { write(Array(text.utf8)) }

  /// Writes all of it. Where standard output cannot be written the process ends: quietly when nobody reads it any more,
  /// else with a sentence. Where standard error cannot be written, nobody can be told.
  func write(_ bytes: [UInt8]) {
    // SAFETY: the buffer is the array's, whose bytes from `done` on are passed on, and is not used after the closure.
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

  /// The stream may be a pipe or terminal that somebody else has set to O_NONBLOCK.
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

  /// Fills in for standard streams that are closed. Otherwise the next file opened, such as /dev/kvm, would take their
  /// place and be written to; what fills in can only be read, so that writing fails as it should.
  static func ensureOpen() {
    for descriptor in 0..<Int32(3) where fcntl(descriptor, F_GETFD) == -1 && errno == EBADF {
      // SAFETY: the path is a literal.
      _ = unsafe open("/dev/null", O_RDONLY)
    }
  }
}

/// Says what is wrong, in one sentence without its full stop. Whatever of it came from outside, it is one line.
func complain(_ sentence: String) {
  StandardStream.error.write("physmem: \(printableText(Array(sentence.utf8)[...], limit: 4096))\n")
}
