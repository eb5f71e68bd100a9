// A plain thread of the host. Its body may own values that are not Sendable: only this thread uses them.

internal import Glibc
package import SystemPackage

// SAFETY: the box is retained once for pthread_create, and released once: by the thread, or here if none was created.
@safe
package final class HostThread: Sendable {
  private final class Body {
    let run: () -> Void
    init(_ run: sending @escaping () -> Void) { self.run = run }
  }

  private let thread: pthread_t

  /// Starts a thread.
  /// - Throws: the `Errno` of pthread_create.
  package init(_ body: sending @escaping () -> Void) throws(Errno) {
    let box = unsafe Unmanaged.passRetained(Body(body))
    var thread = pthread_t()
    let result = unsafe pthread_create(
      &thread, nil,
      { argument in
        guard let argument = unsafe argument else { return nil }
        unsafe Unmanaged<Body>.fromOpaque(argument).takeRetainedValue().run()
        return nil
      }, box.toOpaque())
    guard result == 0 else {
      unsafe box.release()
      throw Errno(rawValue: result)
    }
    self.thread = thread
  }

  /// Gives up waiting for the thread's end. Either this or `join` must be called, once.
  package func detach() { pthread_detach(thread) }

  /// Waits for the thread's end; may be called once.
  package func join() { pthread_join(thread, nil) }
}
