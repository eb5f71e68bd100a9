// State of the host's processor that tasks see on this KVM, found by running a task that looks.
// docs/internals/notes/task-state.md lists all such state.

internal import Machine
internal import Synchronization

/// State that this host cannot hide from tasks; nil if no task could check.
func shownToTasks() -> [String]? {
  var configuration = MachineConfiguration(memory: 4 << 20)
  // No processor of the host has this number.
  configuration.processorNumber = 0xfff_0000
  guard let machine = try? Machine(configuration) else { return nil }
  defer { machine.shutDown() }
  guard let seen = try? look(machine, []), let tables = try? look(machine, ["tables"]) else { return nil }
  var shown: [String] = []
  if let number = seen["processor-number"], number != configuration.processorNumber {
    shown.append("the number of the CPU a task runs on (rdtscp, rdpid)")
  }
  if let features = seen["features"], features != machine.processorFeatures { shown.append("the host's cpuid") }
  if let components = seen["components"], UInt64(components) != machine.extendedFeatures {
    shown.append("the host's XCR0 (xgetbv)")
  }
  if seen["cs"] != machine.userCodeSelector { shown.append("the host's segment descriptors (lar, lsl) and selectors") }
  if tables["machine-status"] != nil { shown.append("system registers (sgdt, sidt, sldt, str, smsw)") }
  if seen["protection-keys"] != nil { shown.append("protection keys, which are cleared for each task") }
  return shown
}

/// The output of the bundled program `processor`, by name.
private func look(_ machine: Machine, _ arguments: [String]) throws -> [String: UInt32] {
  let file = try TaskFile(OutsideName("processor"))
  let text = Mutex<[UInt8]>([])
  let task = try machine.launch(machine.load(name: file.name.bytes, bytes: file.bytes), arguments: arguments) { bytes in
    text.withLock { $0 += bytes }
  }
  _ = task.wait(seconds: 10)
  task.stop(.timeLimit)
  var values: [String: UInt32] = [:]
  for line in text.withLock({ String(decoding: $0, as: UTF8.self) }).split(separator: "\n") {
    let words = line.split(separator: " ")
    if words.count == 2, words[1].hasPrefix("0x") {
      values[String(words[0])] = UInt32(words[1].dropFirst(2), radix: 16)
    }
  }
  return values
}

/// The machine cannot change this: it is a warning for users whose tasks must not know.
func shownCheck(_ kvm: KVMFacts) -> DoctorCheck {
  let name = "host state"
  guard let shown = kvm.shown() else {
    return .warning(name, "no task could look at the processor", advice: "see what is missing above")
  }
  return shown.isEmpty
    ? .ok(name, "tasks see none of the host's processor")
    : .warning(
      name, "cannot be hidden from tasks: " + shown.joined(separator: "; "),
      advice: "none, unless tasks must not see it: then use kvm_intel or kvm_amd, where the processor hides it")
}
