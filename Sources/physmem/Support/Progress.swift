// One line on a terminal that says what is going on, and leaves nothing behind.

/// Where standard error is not a terminal, this does nothing.
struct Progress {
  private let isShown = StandardStream.error.isTerminal

  /// Replaces the line.
  func show(_ text: String) {
    // To the line's start, the text, and nothing behind it; no wider than any terminal, lest it wrap.
    if isShown { StandardStream.error.write("\r\(text.prefix(78))\u{1b}[K") }
  }

  func clear() {
    if isShown { StandardStream.error.write("\r\u{1b}[K") }
  }
}
