// Splits the arguments of `physmem run` from those of the task. ArgumentParser sees only the former, since
// it looks for --help and its other options everywhere.

enum RunArguments {
  /// Options whose value is the next argument, unless joined with a "=".
  static let optionsWithValue: Set<String> = [
    "--memory", "--guaranteed", "--with", "--timeout", "--fault-around",
    "--revoke-every", "--move-every", "--trace", "--policy", "--deadline", "--disk",
  ]

  /// - Returns: the arguments up to TASK, with "--stats" expanded to "--stats=text", and those after TASK.
  ///   Arguments for another subcommand are all in the first part.
  static func split(_ arguments: [String]) -> (own: [String], forTask: [String]) {
    guard arguments.first == "run" else { return (arguments, []) }
    var own = ["run"]
    var rest = arguments.dropFirst()
    while let argument = rest.popFirst() {
      own.append(argument == "--stats" ? "--stats=text" : argument)
      if argument == "--" {
        if let task = rest.popFirst() { own.append(task) }
        break
      }
      if optionsWithValue.contains(argument), let value = rest.popFirst() {
        own.append(value)
      } else if !argument.hasPrefix("-") || argument == "-" {
        break
      }
    }
    return (own, Array(rest))
  }
}
