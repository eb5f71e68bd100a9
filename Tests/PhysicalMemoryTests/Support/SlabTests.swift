// Slabs: elements in place, slots reused, stale handles detected, and every element destroyed once.

import Testing

@testable import PhysicalMemory

@Suite struct SlabTests {
  /// Counts live elements.
  private final class Census {
    var alive = 0
  }

  /// A noncopyable element that reports its end.
  private struct Guest: ~Copyable {
    var name: Int
    let census: Census

    init(name: Int, census: Census) {
      self.name = name
      self.census = census
      census.alive += 1
    }

    deinit { census.alive -= 1 }
  }

  @Test func elementsAreStoredChangedInPlaceAndTakenOut() throws {
    let census = Census()
    var slab = try Slab<ContainerSlot, Guest>(capacity: 4)
    for name in 0..<4 { #expect(slab.insert(Guest(name: name, census: census)) == ContainerSlot(UInt32(name))) }
    #expect(slab.count == 4)
    slab[2].name += 40
    #expect(slab[2].name == 42)
    let removed = slab.remove(at: 2)
    #expect(removed.name == 42)
    #expect(slab.contains(2) == false)
    #expect(slab.contains(3) == true)
    #expect(slab.count == 3)
    #expect(census.alive == 4)
  }

  @Test func aFullSlabRefusesAndDestroysTheElement() throws {
    let census = Census()
    var slab = try Slab<ContainerSlot, Guest>(capacity: 2)
    _ = slab.insert(Guest(name: 0, census: census))
    _ = slab.insert(Guest(name: 1, census: census))
    #expect(slab.insert(Guest(name: 2, census: census)) == nil)
    #expect(slab.count == 2)
    #expect(census.alive == 2)
  }

  @Test func emptySlotsAreReusedLastFirstAndTheirGenerationTells() throws {
    var slab = try Slab<ContainerSlot, Int>(capacity: 8)
    for value in 0..<5 { _ = slab.insert(value) }
    let stale = slab.generation(at: 1)
    _ = slab.remove(at: 3)
    _ = slab.remove(at: 1)
    #expect(slab.insert(10) == 1)
    #expect(slab.insert(30) == 3)
    #expect(slab.insert(50) == 5)
    #expect(slab.generation(at: 1) != stale)
    #expect(slab.generation(at: 0) == slab.generation(at: 5))
    #expect(slab[1] == 10)
  }

  @Test func aSlotWhoseGenerationsAreUsedUpIsLeftAlone() throws {
    var slab = try Slab<ContainerSlot, Int>(capacity: 3)
    for value in 0..<2 { _ = slab.insert(value) }
    slab.age(0, to: .max)
    let last = slab.generation(at: 0)
    _ = slab.remove(at: 0)
    #expect(slab.contains(0) == false)
    #expect(slab.generation(at: 0) != last)
    #expect(slab.insert(7) == 2)
    #expect(slab.insert(8) == nil)
    #expect(slab.count == 2)
    _ = slab.remove(at: 1)
    #expect(slab.insert(9) == 1)
  }

  @Test func occupiedIndicesComeInOrder() throws {
    var slab = try Slab<ContainerSlot, Int>(capacity: 10)
    for value in 0..<10 { _ = slab.insert(value) }
    for index: ContainerSlot in [0, 4, 5, 9] { _ = slab.remove(at: index) }
    var seen: [ContainerSlot] = []
    slab.forEachIndex { seen.append($0) }
    #expect(seen == [1, 2, 3, 6, 7, 8])
    var next = slab.occupied(from: 0)
    while let index = next {
      _ = slab.remove(at: index)
      next = slab.occupied(after: index)
    }
    #expect(slab.count == 0)
  }

  @Test func elementsStayWhereTheyAreWhenTheSlabGrows() throws {
    var slab = try Slab<ContainerSlot, UInt64>(capacity: 1 << 20)
    _ = slab.insert(7)
    // SAFETY: the address is only compared.
    let before = unsafe withUnsafePointer(to: &slab[0]) { UInt(bitPattern: $0) }
    for value in 1..<100_000 as Range<UInt64> { _ = slab.insert(value) }
    // SAFETY: the address is only compared.
    let after = unsafe withUnsafePointer(to: &slab[0]) { UInt(bitPattern: $0) }
    #expect(before == after)
    #expect(slab[0] == 7)
  }

  @Test func whatIsLeftEndsWithTheSlab() throws {
    let census = Census()
    do {
      var slab = try Slab<ContainerSlot, Guest>(capacity: 100)
      for name in 0..<50 { _ = slab.insert(Guest(name: name, census: census)) }
      for index in stride(from: 0, to: 50, by: 3) as StrideTo<UInt32> { _ = slab.remove(at: ContainerSlot(index)) }
      #expect(census.alive == 33)
    }
    #expect(census.alive == 0)
  }

  @Test func emptySlotsTrap() async {
    await #expect(processExitsWith: .failure) {
      let slab = try Slab<ContainerSlot, Int>(capacity: 4)
      _ = slab[0]
    }
    await #expect(processExitsWith: .failure) {
      var slab = try Slab<ContainerSlot, Int>(capacity: 4)
      _ = slab.insert(1)
      _ = slab.remove(at: 0)
      slab[0] = 2
    }
    await #expect(processExitsWith: .failure) {
      var slab = try Slab<ContainerSlot, Int>(capacity: 4)
      _ = slab.remove(at: 9)
    }
  }

  @Test func aSlabThatMayGrowLargeTakesAddressSpaceAsItGrows() throws {
    let chunk = 1 << 16
    var slab = try Slab<ContainerSlot, Int>(capacity: 1 << 31)
    for value in 0..<chunk + 2 { #expect(slab.insert(value) == ContainerSlot(UInt32(value))) }
    #expect([0, chunk - 1, chunk, chunk + 1].allSatisfy { slab[ContainerSlot(UInt32($0))] == $0 })
    #expect(slab.contains(ContainerSlot(UInt32(chunk + 2))) == false)
    #expect(slab.contains(ContainerSlot(.max)) == false)
    _ = slab.remove(at: ContainerSlot(UInt32(chunk)))
    #expect(slab.generation(at: ContainerSlot(UInt32(chunk))) == 2)
    #expect(slab.insert(7) == ContainerSlot(UInt32(chunk)))
    #expect(slab.occupied(from: ContainerSlot(UInt32(chunk))) == ContainerSlot(UInt32(chunk)))
  }
}
