// One line on a terminal that shows the progress, and is erased at the end.

/// Does nothing if standard error is not a terminal.
struct Progress {
  private let isShown = StandardStream.error.isTerminal

  /// Replaces the line.
  func show(_ text: String) {
    // Returns to the line's start, and erases to its end; cut so that it does not wrap.
    if isShown { StandardStream.error.write("\r\(text.prefix(78))\u{1b}[K") }
  }

  func clear() {
    if isShown { StandardStream.error.write("\r\u{1b}[K") }
  }
}
