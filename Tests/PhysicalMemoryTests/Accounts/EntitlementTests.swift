// Entitlements: the ledger against a plain sum over all tasks.

import Testing

@testable import PhysicalMemory

@Suite struct EntitlementTests {
  @Test("R2: a claim is the guarantee; without a contract, it is what the task has") func claims() {
    var entitlement = Entitlement()
    #expect(entitlement.claim == 0)
    entitlement.guaranteed = 10
    #expect(entitlement.claim == 10)
    entitlement.allocated = 12
    #expect(entitlement.claim == 12)
    #expect(entitlement.extra == 0)
    entitlement.hasContract = true
    #expect(entitlement.claim == 10)
    #expect(entitlement.extra == 2)
  }

  @Test("R5: only tasks that ask and may, or have no contract, exceed their guarantee")
  func headroom() {
    var ledger = Ledger(allocatable: 100)
    var entitlement = Entitlement()
    #expect(ledger.set(&entitlement, guaranteed: 30, hasContract: false) == true)
    #expect(ledger.headroom(entitlement, extra: false, lendable: 100) == 100)
    entitlement.hasContract = true
    #expect(ledger.headroom(entitlement, extra: false, lendable: 100) == 30)
    #expect(ledger.headroom(entitlement, extra: true, lendable: 100) == 100)
    #expect(ledger.headroom(entitlement, extra: true, lendable: 0) == 30)
    entitlement.mayUseExtra = false
    #expect(ledger.headroom(entitlement, extra: true, lendable: 100) == 30)
    ledger.charge(&entitlement, 30)
    #expect(ledger.headroom(entitlement, extra: true, lendable: 70) == 0)
    entitlement.mayUseExtra = true
    #expect(ledger.headroom(entitlement, extra: false, lendable: 70) == 0)
    #expect(ledger.headroom(entitlement, extra: true, lendable: 70) == 70)
  }

  @Test("R4, R5: a frame is promised to one task only, and lent to others while it is unused") func promises() {
    var ledger = Ledger(allocatable: 100)
    var (first, second) = (Entitlement(), Entitlement())
    #expect(ledger.set(&first, guaranteed: 60, hasContract: true) == true)
    #expect(ledger.set(&second, guaranteed: 41, hasContract: true) == false)
    #expect(second.guaranteed == 0 && second.hasContract == false)
    #expect(ledger.claimed == 60)
    // Without a contract it can have what is unclaimed.
    #expect(ledger.headroom(second, extra: true, lendable: ledger.free) == 40)
    #expect(ledger.set(&second, guaranteed: 10, hasContract: true) == true)
    #expect(ledger.headroom(second, extra: true, lendable: ledger.free) == 100)
    ledger.charge(&second, 90)
    #expect(second.extra == 80)
    #expect(ledger.headroom(first, extra: false, lendable: ledger.free) == 60)
    #expect(ledger.free == 10)
    #expect(ledger.withdraw(11) == false)
    // A guarantee can be lowered, and raised by what is not promised to others.
    #expect(ledger.set(&second, guaranteed: 41, hasContract: true) == false)
    #expect(ledger.set(&second, guaranteed: 40, hasContract: true) == true)
    #expect(ledger.withdraw(1) == false)
    #expect(ledger.set(&first, guaranteed: 10, hasContract: true) == true)
    #expect(ledger.withdraw(10) == true)
    #expect(ledger.free == 0)
    ledger.restore(10)
  }

  @Test("R4: no number overflows") func bounds() {
    var ledger = Ledger(allocatable: 100)
    var entitlement = Entitlement()
    ledger.charge(&entitlement, 50)
    for guaranteed in [Int.max, Int.min, -1, 101, Int.max - 49] {
      #expect(ledger.set(&entitlement, guaranteed: guaranteed, hasContract: false) == false)
      #expect(ledger.claimed == 50)
    }
    #expect(ledger.set(&entitlement, guaranteed: 100, hasContract: false) == true)
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

  @Test("R3, R4: a guarantee can always be met", arguments: [1, 2, 3] as [UInt64])
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
        let hasContract = Bool.random(using: &random)
        let others = tasks.indices.filter { $0 != index }.reduce(0) { $0 + tasks[$1].claim }
        let own = hasContract ? guaranteed : max(guaranteed, tasks[index].allocated)
        let fits = guaranteed >= 0 && others + own <= total - withdrawn
        let isSet = ledger.set(&tasks[index], guaranteed: guaranteed, hasContract: hasContract)
        try #require(isSet == fits, "seed \(seed), step \(step)")
      case 1: tasks[index].mayUseExtra.toggle()
      case 2:
        let wants = Bool.random(using: &random)
        let most = min(ledger.free, ledger.headroom(tasks[index], extra: wants, lendable: ledger.free))
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
      let allocated = tasks.reduce(0) { $0 + $1.allocated }
      try #require(ledger.allocated == allocated && allocated <= total - withdrawn, "seed \(seed), step \(step)")
      // A claim is covered by free frames or by extra frames of others.
      let extra = tasks.reduce(0) { $0 + $1.extra }
      for task in tasks {
        let left = ledger.headroom(task, extra: false, lendable: 0)
        try #require(left >= task.guaranteed - task.allocated, "seed \(seed), step \(step)")
        try #require(left <= ledger.free + extra, "seed \(seed), step \(step)")
      }
    }
  }
}
