// Files that a command writes at its end: JUnit reports and traces.

internal import OutputFiles

/// A file to be written at the end and checked at the start. Until then none of it exists.
struct ReportFile {
  private let path: OutsideName
  private let file: OutputFile

  /// - Parameter inputs: files that the command reads, and must not replace.
  init(path: OutsideName, inputs: [OutsideName] = []) throws(CommandFailure) {
    self.path = path
    do throws(OutputError) {
      file = try OutputFile(path.bytes, inputs: Set(inputs.compactMap(\.identity)))
    } catch {
      throw .usage("\(path): \(error)")
    }
  }

  func write(_ text: String) throws(CommandFailure) {
    do throws(OutputError) {
      try file.write(Array(text.utf8))
    } catch {
      throw .failure("\(path): \(error)")
    }
  }
}
