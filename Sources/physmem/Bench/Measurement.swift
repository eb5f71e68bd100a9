// The values of one benchmark, and their presentation.

internal import Histogram

struct Measurement {
  enum Unit: String {
    case page, operation, frame
  }

  let name: String
  /// The unit whose cost one value is.
  let per: Unit
  /// In picoseconds: an allocation takes few nanoseconds.
  private var histogram = Histogram<UInt64>(highestTrackableValue: 1 << 52, numberOfSignificantValueDigits: .three)
  /// The maximal growth of the process's memory, in bytes, if measured.
  var residentBytes: Int?

  init(_ name: String, per: Unit) {
    self.name = name
    self.per = per
  }

  /// - Parameter count: the number of units, each of which costs `nanoseconds`.
  mutating func record(nanoseconds: Double, count: Int = 1) {
    histogram.record(UInt64(min(max(nanoseconds, 0) * 1000, 4e15)), count: UInt64(count))
  }

  var count: Int { Int(histogram.totalCount) }

  /// Names and nanoseconds, from min to max; empty if there are no values.
  var values: [(name: String, nanoseconds: Double)] {
    if count == 0 { return [] }
    let percentiles = [50.0, 90, 99].map { (name: "p\(Int($0))", value: histogram.valueAtPercentile($0)) }
    // A percentile is the upper end of its bucket.
    let most = histogram.maxRecorded
    let values = [(name: "min", value: histogram.min)] + percentiles + [(name: "max", value: most)]
    return values.map { ($0.name, (Double(min($0.value, most)) / 100).rounded() / 10) }
  }

  var json: JSONValue {
    var members: [JSONValue.Member] = [
      .init(key: "name", value: .string(name)), .init(key: "unit", value: "ns"),
      .init(key: "per", value: .string(per.rawValue)), .init(key: "count", value: .integer(count)),
    ]
    members += values.map { .init(key: $0.name, value: .double($0.nanoseconds)) }
    if let residentBytes { members.append(.init(key: "resident_bytes", value: .integer(residentBytes))) }
    return .object(members)
  }
}

/// Numbers are right-aligned.
func benchmarksTable(_ measurements: [Measurement]) -> String {
  var rows = [["benchmark", "per", "count", "min", "p50", "p90", "p99", "max", ""]]
  for measurement in measurements {
    let resident = measurement.residentBytes.map { "\($0 >> 10) KiB resident" } ?? ""
    let values = measurement.values.map { timeText($0.nanoseconds) }
    rows.append(
      [measurement.name, measurement.per.rawValue, "\(measurement.count)"]
        + (values.isEmpty ? Array(repeating: "-", count: 5) : values) + [resident]
    )
  }
  for column in 2..<8 {
    let width = rows.map { $0[column].count }.max() ?? 0
    for row in rows.indices {
      rows[row][column] = String(repeating: " ", count: width - rows[row][column].count) + rows[row][column]
    }
  }
  return alignedTable(rows)
}

/// Three digits and a unit: "7.40 ns", "12.3 µs", "456 ms".
func timeText(_ nanoseconds: Double) -> String {
  var value = nanoseconds
  var units = ["ns", "µs", "ms"][...]
  var unit = "s"
  while let next = units.popFirst() {
    unit = next
    if value < 999.5 { break }
    value /= 1000
    unit = "s"
  }
  let decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0
  return "\(fixed(value, decimals: decimals)) \(unit)"
}

private func fixed(_ value: Double, decimals: Int) -> String {
  let scale = [1, 10, 100][decimals]
  let scaled = Int((value * Double(scale)).rounded())
  if decimals == 0 { return "\(scaled)" }
  let fraction = "\(scaled % scale)"
  return "\(scaled / scale)." + String(repeating: "0", count: decimals - fraction.count) + fraction
}

/// `{"host":{…},"benchmarks":[…]}`
func benchmarksJSON(_ host: BenchmarkHost, _ measurements: [Measurement]) -> JSONValue {
  ["host": host.json, "benchmarks": .array(measurements.map(\.json))]
}
