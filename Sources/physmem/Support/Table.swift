// Text in columns, for people. Not with the TextTable package, which loads all of Foundation for every command.

/// Rows of cells as lines, columns as wide as their widest cell and two spaces apart, without trailing spaces.
/// The first row is the headings. Rows may differ in length.
func alignedTable(_ rows: [[String]]) -> String {
  var widths = [Int](repeating: 0, count: rows.map(\.count).max() ?? 0)
  for row in rows {
    for (column, cell) in row.enumerated() { widths[column] = max(widths[column], cell.count) }
  }
  var text = ""
  for row in rows {
    let last = row.lastIndex { !$0.isEmpty } ?? -1
    for (column, cell) in row.prefix(last + 1).enumerated() {
      text += cell
      if column < last { text += String(repeating: " ", count: widths[column] - cell.count + 2) }
    }
    text += "\n"
  }
  return text
}
