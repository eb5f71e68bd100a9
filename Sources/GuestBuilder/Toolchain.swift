// The Swift toolchain's own compilers and linker, which build the guests: nothing else need be installed.

import Foundation

struct Toolchain: Sendable {
  let clang: String
  let linker: String
  let swiftc: String
  /// What String needs to compare and to count characters in Embedded Swift.
  let unicodeTables: String
  /// What clang and swiftc call for what the processor has no instruction for, such as dividing numbers of 128 bits.
  let compilerRuntime: String

  /// - Parameter root: the folder that holds bin and lib.
  init(root: URL) throws {
    // Only the folder is resolved: swiftc is a link to a program that goes by the name it is called with.
    let root = root.resolvingSymlinksInPath().path
    func path(_ relative: String) throws -> String {
      let path = "\(root)/\(relative)"
      guard FileManager.default.fileExists(atPath: path) else {
        throw BuildError.environment("\(path) is missing: a whole Swift toolchain of version 6.3 or later is needed.")
      }
      return path
    }
    clang = try path("bin/clang")
    linker = try path("bin/ld.lld")
    swiftc = try path("bin/swiftc")
    unicodeTables = try path("lib/swift/embedded/x86_64-unknown-none-elf/libswiftUnicodeDataTables.a")
    // Its folder is named by clang's version.
    let versions = (try? FileManager.default.contentsOfDirectory(atPath: "\(root)/lib/clang")) ?? []
    let runtime = "lib/linux/libclang_rt.builtins-x86_64.a"
    compilerRuntime = try path("lib/clang/\(versions.sorted().last ?? "*")/\(runtime)")
  }

  /// The toolchain that `swiftc` on the path belongs to. It is asked, since what lies there may only be a launcher.
  static func installed() throws -> Toolchain {
    struct TargetInfo: Decodable {
      struct Paths: Decodable { let runtimeResourcePath: String }
      let paths: Paths
    }
    let process = Process()
    let output = Pipe()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = ["swiftc", "-print-target-info"]
    process.standardOutput = output
    process.standardError = FileHandle.nullDevice
    do { try process.run() } catch { throw BuildError.environment("/usr/bin/env cannot be started.") }
    let answer = output.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    guard process.terminationStatus == 0, let info = try? JSONDecoder().decode(TargetInfo.self, from: answer) else {
      throw BuildError.environment("swiftc was not found: put the Swift toolchain's bin folder on the PATH.")
    }
    return try Toolchain(root: URL(fileURLWithPath: info.paths.runtimeResourcePath + "/../.."))
  }
}
