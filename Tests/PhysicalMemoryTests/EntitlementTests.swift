// Who may have how many frames: the ledger against a plain sum over all tasks.

import Testing

@testable import PhysicalMemory

@Suite struct EntitlementTests {
  @Test("R2: a claim is what a task has or was promised, whichever is more") func claims() {
    var entitlement = Entitlement()
    #expect(entitlement.claim == 0)
    entitlement.guaranteed = 10
    #expect(entitlement.claim == 10)
    entitlement.allocated = 12
    #expect(entitlement.claim == 12)
  }

  @Test("R5: beyond its guarantee go tasks that may, when they ask, or nobody decided about")
  func headroom() {
    var ledger = Ledger(allocatable: 100)
    var entitlement = Entitlement()
    #expect(ledger.setGuarantee(&entitlement, 30) == true)
    #expect(ledger.headroom(entitlement, extra: false) == 100)
    entitlement.hasContract = true
    #expect(ledger.headroom(entitlement, extra: false) == 30)
    #expect(ledger.headroom(entitlement, extra: true) == 100)
    entitlement.mayUseExtra = false
    #expect(ledger.headroom(entitlement, extra: true) == 30)
    ledger.charge(&entitlement, 30)
    #expect(ledger.headroom(entitlement, extra: true) == 0)
    entitlement.mayUseExtra = true
    #expect(ledger.headroom(entitlement, extra: false) == 0)
    #expect(ledger.headroom(entitlement, extra: true) == 70)
  }

  @Test("R4: what is promised is not given to others") func promises() {
    var ledger = Ledger(allocatable: 100)
    var (first, second) = (Entitlement(), Entitlement())
    #expect(ledger.setGuarantee(&first, 60) == true)
    #expect(ledger.setGuarantee(&second, 41) == false)
    #expect(second.guaranteed == 0)
    #expect(ledger.claimed == 60)
    #expect(ledger.headroom(second, extra: true) == 40)
    ledger.charge(&second, 40)
    #expect(ledger.withdraw(1) == false)
    #expect(ledger.headroom(first, extra: true) == 60)
    // A guarantee can go down to what the others leave, and come back.
    #expect(ledger.setGuarantee(&first, 10) == true)
    #expect(ledger.withdraw(50) == true)
    #expect(ledger.setGuarantee(&first, 11) == false)
    ledger.restore(50)
    #expect(ledger.setGuarantee(&first, 60) == true)
  }

  @Test("R4: no number overflows") func bounds() {
    var ledger = Ledger(allocatable: 100)
    var entitlement = Entitlement()
    ledger.charge(&entitlement, 50)
    for guaranteed in [Int.max, Int.min, -1, 101, Int.max - 49] {
      #expect(ledger.setGuarantee(&entitlement, guaranteed) == false)
      #expect(ledger.claimed == 50)
    }
    #expect(ledger.setGuarantee(&entitlement, 100) == true)
  }

  @Test func chargingMoreThanThereIsTraps() async {
    await #expect(processExitsWith: .failure) {
      var ledger = Ledger(allocatable: 10)
      var entitlement = Entitlement()
      ledger.charge(&entitlement, 11)
    }
    await #expect(processExitsWith: .failure) {
      var ledger = Ledger(allocatable: 10)
      var entitlement = Entitlement()
      ledger.charge(&entitlement, -1)
    }
  }

  @Test("R3, R4: whatever happens, what is guaranteed can be had", arguments: [1, 2, 3] as [UInt64])
  func randomChanges(seed: UInt64) throws {
    var random = SeededGenerator(state: seed)
    let total = 500
    var ledger = Ledger(allocatable: total)
    var tasks = [Entitlement](repeating: Entitlement(), count: 6)
    var withdrawn = 0
    for step in 0..<5000 {
      let index = Int.random(in: 0..<tasks.count, using: &random)
      switch Int.random(in: 0..<5, using: &random) {
      case 0:
        let guaranteed = Int.random(in: -10...600, using: &random)
        let others = tasks.indices.filter { $0 != index }.reduce(0) { $0 + tasks[$1].claim }
        let fits = guaranteed >= 0 && others + max(guaranteed, tasks[index].allocated) <= total - withdrawn
        try #require(ledger.setGuarantee(&tasks[index], guaranteed) == fits, "seed \(seed), step \(step)")
      case 1:
        tasks[index].mayUseExtra.toggle()
        tasks[index].hasContract = Bool.random(using: &random)
      case 2:
        let most = ledger.headroom(tasks[index], extra: Bool.random(using: &random))
        ledger.charge(&tasks[index], Int.random(in: 0...most, using: &random))
      case 3:
        ledger.charge(&tasks[index], -Int.random(in: 0...tasks[index].allocated, using: &random))
      default:
        let count = Int.random(in: 1...20, using: &random)
        if Bool.random(using: &random), withdrawn >= count {
          ledger.restore(count)
          withdrawn -= count
        } else if ledger.withdraw(count) {
          withdrawn += count
        }
      }
      let claimed = tasks.reduce(0) { $0 + $1.claim }
      try #require(ledger.claimed == claimed, "seed \(seed), step \(step)")
      try #require(claimed <= total - withdrawn, "seed \(seed), step \(step)")
      for task in tasks {
        try #require(
          ledger.headroom(task, extra: false) >= task.guaranteed - task.allocated, "seed \(seed), step \(step)")
      }
    }
  }
}
