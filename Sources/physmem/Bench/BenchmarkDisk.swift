// disk: a driver task that reads a disk sequentially, 128 KiB a request, and for comparison dd with blocks of that
// size on the same file. The file is in the host's page cache.

internal import Glibc
internal import Machine
internal import PhysicalMemory
internal import SystemPackage

func measureDisk(_ run: BenchmarkRun) throws -> [Measurement] {
  let file = try BenchmarkFile(megabytes: run.isQuick ? 16 : 256)
  defer { file.remove() }
  var configuration = MachineConfiguration(memory: 64 << 20)
  configuration.disks = [DiskConfiguration(file: try file.open())]
  let machine = try Machine(configuration)
  defer { machine.shutDown() }
  let reader = try BenchmarkTask("diskread", on: machine)
  var reads = Measurement("disk.read", per: .operation)
  var copies = Measurement("disk.dd", per: .operation)
  // Alternating, so that other load on the host affects both.
  try run.times(8, quick: 1, "disk") {
    let passes = try readDisk(reader)
    // The first pass includes faults on the driver's own pages.
    for nanoseconds in passes.dropFirst() { reads.record(nanoseconds: nanoseconds) }
    copies.record(nanoseconds: try file.copyWithDD())
  }
  return [reads, copies]
}

/// - Returns: nanoseconds per 128 KiB, for three passes.
private func readDisk(_ reader: BenchmarkTask) throws -> [Double] {
  let text = CapturedOutput()
  let task = try reader.start(["3", "32", "8"]) { text.append($0) }
  let status = task.wait().exitStatus
  let passes = text.text.split(separator: "\n").compactMap { line -> Double? in
    let numbers = line.split(separator: " ").compactMap { Double($0) }
    return numbers.count == 2 && numbers[0] > 0 ? numbers[1] / numbers[0] * Double(BenchmarkFile.blockSize) : nil
  }
  guard status == 0, passes.count == 3 else {
    throw CommandFailure.failure(
      "the benchmark program diskread ended with \(status): \(text.text)see `physmem test disk`")
  }
  return passes
}

/// A file of a given size, in the page cache if there is room.
private struct BenchmarkFile {
  static let blockSize = 128 << 10
  let path: String
  let megabytes: Int

  init(megabytes: Int) throws(CommandFailure) {
    path = "/tmp/physmem-bench-\(getpid())"
    self.megabytes = megabytes
    do {
      let file = try FileDescriptor.open(
        FilePath(path), .writeOnly, options: [.create, .exclusiveCreate, .closeOnExec], permissions: .ownerReadWrite)
      try file.closeAfter {
        let block = (0..<1 << 20).map { UInt8(truncatingIfNeeded: $0 * 7 + $0 >> 12) }
        for _ in 0..<megabytes { _ = try file.writeAll(block) }
      }
    } catch {
      remove()
      throw .failure("\(path) cannot be written (\(error)): make room in /tmp")
    }
  }

  func open() throws(CommandFailure) -> BackingFile {
    do throws(BackingFileError) { return try BackingFile(path: path, isReadOnly: true) } catch {
      throw .failure("\(path): \(error)")
    }
  }

  /// - Returns: nanoseconds per block.
  func copyWithDD() throws(CommandFailure) -> Double {
    let start = monotonicNanoseconds()
    do throws(Errno) {
      let status = try ChildProcess("/bin/dd", ["dd", "if=\(path)", "of=/dev/null", "bs=\(Self.blockSize)"]).wait()
      guard status == 0 else { throw Errno.ioError }
    } catch {
      throw .failure("/bin/dd cannot copy \(path): \(error)")
    }
    return Double(monotonicNanoseconds() - start) / Double(megabytes << 20 / Self.blockSize)
  }

  func remove() { _ = unsafe unlink(path) }
}
