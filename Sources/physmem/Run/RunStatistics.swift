// `physmem run --stats`: statistics of the task and the server.

internal import GuestMemory
internal import PhysicalMemory

enum StatisticsFormat: String, CaseIterable, Sendable {
  case text
  case json
}

struct RunStatistics {
  private let task: [(name: String, value: Int)]
  private let server: [(name: String, value: Int)]

  private let fragmentation: Fragmentation

  init(_ counters: TaskCounters, _ statistics: ServerStatistics, _ fragmentation: Fragmentation) {
    self.fragmentation = fragmentation
    task = [
      ("faults", Int(counters.faults)), ("pages served", Int(counters.pages)),
      ("spurious faults", Int(counters.spuriousFaults)), ("delivered faults", Int(counters.deliveredFaults)),
    ]
    var server = [
      ("faults", Int(statistics.faults)), ("pages served", Int(statistics.pagesServed)),
      ("spurious faults", Int(statistics.spuriousFaults)), ("delivered faults", Int(statistics.deliveredFaults)),
      ("pages mapped", Int(statistics.pagesMapped)),
      ("copies on write", Int(statistics.copiesOnWrite)), ("zaps", Int(statistics.zaps)),
      ("frames zapped", Int(statistics.framesZapped)), ("upcalls", Int(statistics.upcalls)),
      ("tasks dropped", Int(statistics.tasksDropped)), ("frames expired", Int(statistics.framesExpired)),
      ("frames given back", Int(statistics.framesGivenBack)), ("frames moved", Int(statistics.framesMoved)),
      ("placements", Int(statistics.placements)), ("placements refused", Int(statistics.placementsRefused)),
      ("superpages", statistics.superpages.current), ("superpages mapped", Int(statistics.superpagesMapped)),
      ("pages served by superpages", Int(statistics.superpagesMapped) * PoolMemory.framesPerBlock),
      ("superpages gathered", Int(statistics.superpagesGathered)),
      ("superpages promoted", Int(statistics.superpagesPromoted)), ("superpages split", statistics.superpages.split),
    ]
    server += SplitCause.allCases.map { ("split by \($0.text)", statistics.superpages.splits[$0, default: 0]) }
    server += [
      ("flushes", statistics.superpages.flushes), ("tasks created", Int(statistics.tasksCreated)),
      ("tasks", statistics.tasks), ("frames", statistics.frames), ("free frames", statistics.freeFrames),
      ("stocked frames", statistics.stockedFrames), ("allocatable frames", statistics.allocatableFrames),
      ("claimed frames", statistics.claimedFrames), ("allocated frames", statistics.allocatedFrames),
      ("released frames", statistics.releasedFrames), ("table frames", statistics.tableFrames),
      ("contents", statistics.contents), ("containers", statistics.containers),
      // In microseconds.
      ("holds of the lock", Int(statistics.holds)), ("longest hold of the lock", Int(statistics.longestHold / 1000)),
      ("hold of the lock at 99.9 %", Int(statistics.commonHold / 1000)),
    ]
    self.server = server
  }

  /// Ends with a newline.
  func text(as format: StatisticsFormat) -> String {
    switch format {
    case .json: json.description + "\n"
    case .text:
      alignedTable(
        task.map { ["task", $0.name, "\($0.value)"] } + server.map { ["server", $0.name, "\($0.value)"] }
      ) + "\n" + freeRunsTable
    }
  }

  private static let zones = ["below 16 MiB", "below 4 GiB", "above 4 GiB"]

  /// A row for each order: the length of a run, the number of such free runs in each zone, and the share of free frames
  /// that is unusable for a request of that length.
  private var freeRunsTable: String {
    let orders = fragmentation.freeRuns[0].indices
    let last = orders.last { order in fragmentation.freeRuns.contains { $0[order] > 0 } } ?? 0
    var rows = [["free runs of"] + Self.zones + ["unusable"]]
    for order in 0...last {
      rows.append(
        [sizeText(4096 << order)] + fragmentation.freeRuns.map { "\($0[order])" }
          + ["\(Int((fragmentation.unusable(order: order) * 100).rounded())) %"])
    }
    return alignedTable(rows)
  }

  /// `{"task":{"faults":…,…},"server":{"faults":…,…},"free_runs":{"below_16_mib":[…],…},"unusable":[…]}`: of the
  /// arrays, element n is about runs of 2^n frames.
  private var json: JSONValue {
    let object = { (rows: [(name: String, value: Int)]) -> JSONValue in
      .object(
        rows.map {
          .init(key: $0.name.replacing(" %", with: "").replacing(" ", with: "_"), value: .integer($0.value))
        })
    }
    let runs = zip(Self.zones, fragmentation.freeRuns).map { zone, runs in
      JSONValue.Member(
        key: zone.lowercased().replacing(" ", with: "_"), value: .array(runs.map { .integer($0) }))
    }
    let unusable = fragmentation.freeRuns[0].indices.map { JSONValue.double(fragmentation.unusable(order: $0)) }
    return [
      "task": object(task), "server": object(server), "free_runs": .object(runs), "unusable": .array(unusable),
    ]
  }
}

extension SplitCause {
  fileprivate var text: String {
    switch self {
    case .copied: "copies"
    case .moved: "moves"
    case .unmapped: "unmapping"
    case .freed: "freeing"
    case .withdrawn: "locks and cancelled shares"
    }
  }
}
