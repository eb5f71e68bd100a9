// One run of a compiler or the linker, and running many: at most two at a time, and none whose result is there.

import Foundation
import Synchronization

/// The compilers that run now. A signal that ends this process ends them first: each is in a process group of its own, so
/// that nobody else would.
enum RunningTools {
  private static let processes = Mutex<Set<Int32>>([])

  static func insert(_ process: Int32) { processes.withLock { _ = $0.insert(process) } }
  static func remove(_ process: Int32) { processes.withLock { _ = $0.remove(process) } }

  /// From now on; the result is to be kept.
  static func endOnSignals() -> [any DispatchSourceSignal] {
    [SIGHUP, SIGINT, SIGTERM].map { number in
      signal(number, SIG_IGN)
      let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
      source.setEventHandler {
        // They ignore what is ignored here.
        processes.withLock { for process in $0 { kill(process, SIGKILL) } }
        exit(128 + number)
      }
      source.resume()
      return source
    }
  }
}

struct BuildStep: Sendable {
  /// Stands for the result's path among the arguments: a step writes beside it and moves the whole result there, so
  /// that what is there is never half of one.
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
        ended.resume(throwing: BuildError.environment("\(tool) cannot be started: is the Swift toolchain whole?"))
      }
    }
    guard status == 0 else {
      try? FileManager.default.removeItem(atPath: partial)
      throw BuildError.toolFailed(status: status)
    }
    // SAFETY: both strings outlive the call. FileManager does not replace a file that is there.
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

/// A short name for contents, so that a result is named by all that it was made from and never has to be made twice.
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
