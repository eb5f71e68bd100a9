// The smallest Swift program that prints something.

import Physmem

@main
struct Hello {
  static func main() {
    guard let info = try? ThisTask.info() else { ThisTask.exit(1) }
    print("Hello from Swift in task \(info.id).")
    for (index, argument) in ThisTask.arguments.enumerated().dropFirst() { print("argument \(index): \(argument)") }
  }
}
