// `physmem run --stats`: what the task and the server did.

internal import PhysicalMemory

enum StatisticsFormat: String, CaseIterable, Sendable {
  case text
  case json
}

struct RunStatistics {
  private let task: [(name: String, value: Int)]
  private let server: [(name: String, value: Int)]

  init(_ counters: TaskCounters, _ statistics: ServerStatistics) {
    task = [
      ("faults", Int(counters.faults)), ("pages served", Int(counters.pages)),
      ("spurious faults", Int(counters.spuriousFaults)),
    ]
    server = [
      ("faults", Int(statistics.faults)), ("pages served", Int(statistics.pagesServed)),
      ("copies on write", Int(statistics.copiesOnWrite)), ("zaps", Int(statistics.zaps)),
      ("frames zapped", Int(statistics.framesZapped)), ("upcalls", Int(statistics.upcalls)),
      ("tasks dropped", Int(statistics.tasksDropped)), ("frames expired", Int(statistics.framesExpired)),
      ("superpages", statistics.superpages.current), ("superpages mapped", Int(statistics.superpagesMapped)),
      ("superpages promoted", Int(statistics.superpagesPromoted)), ("superpages split", statistics.superpages.split),
      ("flushes", statistics.superpages.flushes),
      ("frames given back", Int(statistics.framesGivenBack)), ("tasks created", Int(statistics.tasksCreated)),
      ("tasks", statistics.tasks), ("frames", statistics.frames), ("free frames", statistics.freeFrames),
      ("stocked frames", statistics.stockedFrames), ("allocatable frames", statistics.allocatableFrames),
      ("claimed frames", statistics.claimedFrames), ("allocated frames", statistics.allocatedFrames),
      ("released frames", statistics.releasedFrames), ("table frames", statistics.tableFrames),
      ("contents", statistics.contents), ("containers", statistics.containers),
    ]
  }

  /// Ends with a newline.
  func text(as format: StatisticsFormat) -> String {
    switch format {
    case .json: json.description + "\n"
    case .text:
      alignedTable(
        task.map { ["task", $0.name, "\($0.value)"] } + server.map { ["server", $0.name, "\($0.value)"] }
      )
    }
  }

  /// `{"task":{"faults":…,…},"server":{"faults":…,"pages_served":…,…}}`
  private var json: JSONValue {
    let object = { (rows: [(name: String, value: Int)]) -> JSONValue in
      .object(rows.map { .init(key: $0.name.replacing(" ", with: "_"), value: .integer($0.value)) })
    }
    return ["task": object(task), "server": object(server)]
  }
}
