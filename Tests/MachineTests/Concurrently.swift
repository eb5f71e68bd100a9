// Several threads of the host at once, however few processors there are.

import Machine

/// Calls `body` with 0, 1 … on a thread each, and waits for all of them.
func concurrently(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) throws {
  let threads = try (0..<count).map { index in try HostThread { body(index) } }
  for thread in threads { thread.join() }
}
