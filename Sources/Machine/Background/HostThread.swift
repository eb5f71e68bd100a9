// A plain thread of the host. Its body may own values that are not Sendable: they are confined to it.

internal import Glibc
package import SystemPackage

// SAFETY: the box is retained once for pthread_create and released once by the thread, or here when there is none.
@safe
package final class HostThread: Sendable {
  private final class Body {
    let run: () -> Void
    init(_ run: sending @escaping () -> Void) { self.run = run }
  }

  private let thread: pthread_t

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

  /// Nobody is going to wait for the thread's end; this or `join`, once.
  package func detach() { pthread_detach(thread) }

  /// Waits for the thread's end; once.
  package func join() { pthread_join(thread, nil) }
}
