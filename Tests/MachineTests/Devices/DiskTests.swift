// A machine with a disk: what a guest cannot test itself (R22, R40).

import CKVM
import Glibc
import GuestImages
import PhysicalMemory
import SystemPackage
import Synchronization
import Testing

@testable import Machine

/// Requests that a device rejected.
private final class Reports: Sendable {
  private let lines = Mutex<[String]>([])
  var report: @Sendable (String) -> Void { { text in self.lines.withLock { $0.append(text) } } }
  var all: [String] { lines.withLock { $0 } }
}

private func configuration(_ file: BackingFile, _ reports: Reports) -> MachineConfiguration {
  var configuration = MachineConfiguration(memory: 64 << 20)
  configuration.disks = [DiskConfiguration(file: file, report: reports.report)]
  return configuration
}

/// Limits the size of all files of this process, in bytes. SIGXFSZ stays unblocked in this thread and the threads it
/// creates, as in a program without a task pool.
private func limitFiles(to size: UInt) {
  var limit = rlimit(rlim_cur: size, rlim_max: size)
  var signals = sigset_t()
  // SAFETY: limit and signal set outlive the calls.
  let result = unsafe setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limit)
  unsafe sigemptyset(&signals)
  unsafe sigaddset(&signals, SIGXFSZ)
  precondition(unsafe result == 0 && pthread_sigmask(SIG_UNBLOCK, &signals, nil) == 0)
}

/// A zeroed disk in memory of this many bytes.
private func sparseFile(_ size: Int) throws -> BackingFile {
  // SAFETY: the name is a literal.
  let file = FileDescriptor(rawValue: unsafe memfd_create("disk", 0))
  try file.resize(to: Int64(size))
  return BackingFile(file, sectorCount: UInt64(size / 512))
}

extension OnKVM {
  @Suite struct DiskTests {
    @Test(
      "R22, R40: a driver task reads and writes a client's frames without access to them",
      arguments: [nil, 100])
    func throughDriver(revocationInterval: UInt64?) throws {
      let file = try BackingFile(contents: Array("first".utf8) + Array(repeating: 0, count: 4096))
      let reports = Reports()
      var configuration = configuration(file, reports)
      configuration.revocationInterval = revocationInterval
      try withMachine(configuration) { machine in
        let driver = try machine.launch(machine.bundled("blockdriver")) { _ in }
        let client = try machine.bundled("diskclient")
        for (text, next) in [("first", "second"), ("second", "third")] {
          let transcript = Transcript()
          #expect(try machine.run(client, ["0", next], console: transcript.console).end.exitStatus == 0)
          #expect(transcript.text.contains("The disk has 8 sectors."))
          #expect(transcript.text.contains("Sector 0 begins: \(text)"), "\(transcript.text)")
          #expect(transcript.text.contains("before: yes."), "\(transcript.text)")
        }
        // Past the end.
        let transcript = Transcript()
        #expect(try machine.run(client, ["8"], console: transcript.console).end.exitStatus == 1)
        #expect(transcript.text.contains("PM_EIO"))
        #expect(
          reports.all.count == 1 && reports.all[0].contains("sector 8 and 0 more, of a disk that has 8"),
          "\(reports.all)")
        driver.stop(.machineEnd)
        _ = driver.wait()
      }
    }

    @Test("a truncated file fails requests, and the machine continues") func shrinks() throws {
      let file = try BackingFile(contents: Array(repeating: 1, count: 4 << 20))
      let reports = Reports()
      try withMachine(configuration(file, reports)) { machine in
        let reader = try machine.bundled("diskread")
        let transcript = Transcript()
        let hasShrunk = Atomic<Bool>(false)
        let (end, _) = try machine.run(reader, ["1000000", "32", "8"]) { text in
          transcript.console(text)
          if !hasShrunk.exchange(true, ordering: .relaxed) { try? file.shorten(to: 1 << 20) }
        }
        #expect(end.exitStatus == 1 && transcript.text.contains("reading: PM_EIO"), "\(transcript.text)")
        #expect(reports.all.contains { $0.contains("has become shorter; the request failed") }, "\(reports.all)")
        #expect(try machine.run(reader, ["1", "32", "8"]).end.exitStatus == 1)
      }
    }

    @Test("a driver stopped at any moment leaves nothing behind, and the disk is free for the next one")
    func stopped() throws {
      let file = try BackingFile(contents: Array(repeating: 1, count: 4 << 20))
      let reports = Reports()
      try withMachine(configuration(file, reports)) { machine in
        let reader = try machine.bundled("diskread")
        let before = machine.server.statistics
        for round in 0..<40 {
          let task = try machine.launch(reader, arguments: ["1000000", "32", "8"]) { _ in }
          usleep(UInt32(round * 500))
          task.stop(.timeLimit)
          _ = task.wait()
          #expect(machine.server.checkInvariants() == [])
        }
        let after = machine.server.statistics
        #expect(after.claimedFrames == before.claimedFrames && after.contents == before.contents)
        #expect(after.tasks == 0)
        #expect(try machine.run(reader, ["2", "32", "8"]).end.exitStatus == 0)
        // All ranges that they requested were pinned.
        #expect(reports.all == [])
      }
    }

    @Test("a write beyond the process's file size limit fails without ending the process")
    func sizeLimit() async {
      await #expect(processExitsWith: .success) {
        let file = try sparseFile(64 << 20)
        limitFiles(to: 32 << 20)
        let reports = Reports()
        var configuration = configuration(file, reports)
        configuration.memory = 16 << 20
        try withMachine(configuration) { machine in
          _ = try machine.launch(machine.bundled("blockdriver")) { _ in }
          let client = try machine.bundled("diskclient")
          for sector in [65536, 100000, 65535, 0] {
            #expect(try machine.run(client, ["\(sector)", "text"]).end.exitStatus == (sector >= 65536 ? 1 : 0))
          }
          let sentence =
            "disk 0, driven by task 1: a write to the disk, sector 65536, failed: File too large; the request failed"
          #expect(reports.all.count == 2 && reports.all.first == sentence, "\(reports.all)")
        }
      }
    }

    @Test("rejected requests are reported up to a limit") func reportsEnd() throws {
      let file = try BackingFile(contents: Array(repeating: 1, count: 4096))
      let reports = Reports()
      try withMachine(configuration(file, reports)) { machine in
        let driver = try machine.launch(machine.bundled("blockdriver")) { _ in }
        let client = try machine.bundled("diskclient")
        for _ in 0..<120 { #expect(try machine.run(client, ["77"]).end.exitStatus == 1) }
        #expect(reports.all.count == 100)
        #expect(reports.all.last?.hasSuffix("(further rejections are not reported)") == true)
        driver.stop(.machineEnd)
        _ = driver.wait()
      }
    }
  }
}

@Suite struct BackingFileTests {
  @Test("unsuitable backing files") func unfit() throws {
    #expect(throws: BackingFileError.missing) { try BackingFile(path: "/nowhere/x") }
    #expect(throws: BackingFileError.notRegular) { try BackingFile(path: "/dev/null") }
    #expect(throws: BackingFileError.notRegular) { try BackingFile(path: "/") }
    #expect(throws: BackingFileError.tooSmall) { try BackingFile(path: "/proc/self/status") }
  }
}
