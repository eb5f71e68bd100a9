// `physmem run --trace`: a task's exits over time in the Trace Event format that timeline viewers read: one object with
// an array of complete ("X") events, times in microseconds from the launch.

internal import Machine

/// An event lasts from the exit to the end of its service, including a call's wait: the task runs between events.
func traceText(_ samples: ExitSamples, task: OutsideName) -> String {
  var text = "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n"
  text +=
    "{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":1,\"args\":{\"name\":\(JSONValue.string(task.description).description)}}"
  var end: UInt64 = 0
  for sample in samples.samples {
    end += sample.nanoseconds
    let pages = sample.kind == .fault ? ",\"args\":{\"pages\":\(sample.pages)}" : ""
    text +=
      ",\n{\"name\":\"\(sample.kind)\",\"ph\":\"X\",\"pid\":1,\"tid\":1,\"ts\":\(microseconds(end - sample.service))"
    text += ",\"dur\":\(microseconds(sample.service))\(pages)}"
  }
  return text + "\n]}\n"
}

/// With three decimals.
private func microseconds(_ nanoseconds: UInt64) -> String {
  let rest = String(nanoseconds % 1000)
  return "\(nanoseconds / 1000).\(String(repeating: "0", count: 3 - rest.count))\(rest)"
}
