// Files that a command writes at its end: JUnit reports and traces.

internal import SystemPackage

/// A file to be written at the end, opened at the start.
struct ReportFile {
  let path: String
  let file: FileDescriptor

  init(path: String) throws(CommandFailure) {
    self.path = path
    do {
      file = try FileDescriptor.open(
        FilePath(path),
        .writeOnly,
        options: [.create, .truncate, .closeOnExec],
        permissions: [.ownerReadWrite, .groupRead, .otherRead]
      )
    } catch {
      throw .usage("\(path): cannot be written (\(error)): name another file for the report")
    }
  }

  func write(_ text: String) throws(CommandFailure) {
    do {
      try file.writeAll(text.utf8)
      try file.close()
    } catch {
      throw .failure("\(path): cannot be written (\(error)): name another file for the report")
    }
  }
}
