// Runs code on several threads of the host, however few CPUs there are.

import Machine

/// Calls `body` with 0, 1, … on a thread each, and waits for all threads.
func concurrently(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) throws {
  let threads = try (0..<count).map { index in try HostThread { body(index) } }
  for thread in threads { thread.join() }
}
