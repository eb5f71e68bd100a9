// `physmem run --trace`: a task's exits over time, as the Trace Event format that timeline viewers read: one object with
// an array of complete ("X") events, times in microseconds from the launch.

internal import Machine

/// An event lasts from the end of the service before it: the task's own running time is in it, up to the exit.
func traceText(_ samples: ExitSamples, task: OutsideName) -> String {
  var text = "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n"
  text +=
    "{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":1,\"args\":{\"name\":\(JSONValue.string(task.description).description)}}"
  var start: UInt64 = 0
  for sample in samples.samples {
    let pages = sample.kind == .fault ? ",\"args\":{\"pages\":\(sample.pages)}" : ""
    text += ",\n{\"name\":\"\(sample.kind)\",\"ph\":\"X\",\"pid\":1,\"tid\":1,\"ts\":\(microseconds(start))"
    text += ",\"dur\":\(microseconds(sample.nanoseconds))\(pages)}"
    start += sample.nanoseconds
  }
  return text + "\n]}\n"
}

/// With three digits behind the point.
private func microseconds(_ nanoseconds: UInt64) -> String {
  let rest = String(nanoseconds % 1000)
  return "\(nanoseconds / 1000).\(String(repeating: "0", count: 3 - rest.count))\(rest)"
}
