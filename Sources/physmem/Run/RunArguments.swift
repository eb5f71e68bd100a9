// Where the arguments of `physmem run` end and those of the task begin. ArgumentParser gets to see the former only:
// it looks for --help and others of its own in all it sees.

enum RunArguments {
  /// Options whose value is the next argument, unless it comes with a "=".
  static let optionsWithValue: Set<String> = [
    "--memory", "--guaranteed", "--with", "--timeout", "--fault-around",
    "--revoke-every", "--move-every", "--trace", "--policy", "--deadline", "--disk",
  ]

  /// - Returns: the arguments up to TASK, in which "--stats" is spelled out as "--stats=text", and those behind TASK.
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
