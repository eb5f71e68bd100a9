// One run of a compiler or the linker, and running many: at most two at a time, and none whose result exists.

import Foundation
import Synchronization

/// The compilers that are running. A signal that ends this process kills them first: each has its own process group, so
/// the terminal does not signal them.
enum RunningTools {
  private static let processes = Mutex<Set<Int32>>([])

  static func insert(_ process: Int32) { processes.withLock { _ = $0.insert(process) } }
  static func remove(_ process: Int32) { processes.withLock { _ = $0.remove(process) } }

  /// Installs the handlers; the caller must keep the result.
  static func endOnSignals() -> [any DispatchSourceSignal] {
    [SIGHUP, SIGINT, SIGTERM].map { number in
      signal(number, SIG_IGN)
      let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
      source.setEventHandler {
        // Children inherit signals that are ignored here, so SIGKILL.
        processes.withLock { for process in $0 { kill(process, SIGKILL) } }
        exit(128 + number)
      }
      source.resume()
      return source
    }
  }
}

struct BuildStep: Sendable {
  /// A placeholder for the result's path in the arguments: a step writes a temporary file and renames it, so the
  /// result is never incomplete.
  static let output = "%output%"

  let tool: String
  let arguments: [String]
  let output: String

  func run() async throws {
    let partial = "\(output).\(ProcessInfo.processInfo.processIdentifier)"
    let process = Process()
    process.executableURL = URL(fileURLWithPath: tool)
    process.arguments = arguments.map { $0 == Self.output ? partial : $0 }
    let status = try await withCheckedThrowingContinuation { (ended: CheckedContinuation<Int32, any Error>) in
      process.terminationHandler = { process in
        RunningTools.remove(process.processIdentifier)
        ended.resume(returning: process.terminationStatus)
      }
      do {
        try process.run()
        if process.isRunning { RunningTools.insert(process.processIdentifier) }
      } catch {
        ended.resume(throwing: BuildError.environment("\(tool) cannot be started: is the Swift toolchain complete?"))
      }
    }
    guard status == 0 else {
      try? FileManager.default.removeItem(atPath: partial)
      throw BuildError.toolFailed(status: status)
    }
    // SAFETY: both strings outlive the call. FileManager does not replace an existing file.
    guard unsafe rename(partial, output) == 0 else {
      throw BuildError.environment("\(output) cannot be written.")
    }
  }

  /// Runs the steps whose results are missing, in any order.
  static func run(_ steps: [BuildStep]) async throws {
    var waiting = steps.filter { !FileManager.default.fileExists(atPath: $0.output) }[...]
    try await withThrowingTaskGroup(of: Void.self) { group in
      for step in waiting.prefix(2) { group.addTask { try await step.run() } }
      waiting = waiting.dropFirst(2)
      while try await group.next() != nil {
        if let step = waiting.popFirst() { group.addTask { try await step.run() } }
      }
    }
  }
}

/// A hash of everything a result is made from, which names the result, so that it is never built twice.
struct Fingerprint {
  private var hash: UInt64 = 0xcbf2_9ce4_8422_2325

  mutating func add(_ text: String) {
    for byte in text.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
    hash = (hash ^ 0xff) &* 0x100_0000_01b3
  }

  mutating func add(contentsOf path: String) throws {
    guard let contents = FileManager.default.contents(atPath: path) else {
      throw BuildError.usage("\(path) cannot be read.")
    }
    add(path)
    for byte in contents { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
  }

  var text: String { String(hash, radix: 36) }
}
