// The Swift toolchain's own compilers and linker, which build the guests: no other tool is needed.

import Foundation

struct Toolchain: Sendable {
  let clang: String
  let linker: String
  let swiftc: String
  /// Tables that String needs to compare and to count characters in Embedded Swift.
  let unicodeTables: String
  /// Functions that clang and swiftc call for missing instructions, such as the division of 128-bit numbers.
  let compilerRuntime: String

  /// - Parameter root: the folder with bin and lib.
  init(root: URL) throws {
    // Resolves only the folder: swiftc is a link to a program that acts by the name it is called with.
    let root = root.resolvingSymlinksInPath().path
    func path(_ relative: String) throws -> String {
      let path = "\(root)/\(relative)"
      guard FileManager.default.fileExists(atPath: path) else {
        throw BuildError.environment("\(path) is missing: a complete Swift toolchain, version 6.3 or later, is needed.")
      }
      return path
    }
    clang = try path("bin/clang")
    linker = try path("bin/ld.lld")
    swiftc = try path("bin/swiftc")
    unicodeTables = try path("lib/swift/embedded/x86_64-unknown-none-elf/libswiftUnicodeDataTables.a")
    // The folder is named by clang's version.
    let versions = (try? FileManager.default.contentsOfDirectory(atPath: "\(root)/lib/clang")) ?? []
    let runtime = "lib/linux/libclang_rt.builtins-x86_64.a"
    compilerRuntime = try path("lib/clang/\(versions.sorted().last ?? "*")/\(runtime)")
  }

  /// The toolchain of the `swiftc` on the path. It is asked for its root, since the file may only be a launcher.
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
