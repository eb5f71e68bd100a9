// The reverse map, from frames to leaves: against a dictionary of sets, and out of nodes.

import GuestMemory
import Testing

@testable import PhysicalMemory

private func place(_ slot: UInt32, _ page: UInt64) -> MappedPlace { MappedPlace(TaskSlot(slot), PageNumber(page)) }

extension ReverseMap {
  fileprivate mutating func addAny(_ place: MappedPlace, to link: inout UInt64) -> Bool {
    add(place, to: &link) || addSurplus(place, to: &link)
  }

  fileprivate mutating func remove(_ place: MappedPlace, from link: inout UInt64) {
    var looked = 0
    remove(place, from: &link, looked: &looked)
  }

  fileprivate func places(_ link: UInt64) -> [UInt64] {
    var found: [UInt64] = []
    forEach(in: link) { found.append($0.location) }
    return found
  }
}

@Suite struct ReverseMapTests {
  @Test func aPlaceKeepsItsSlotAndPage() {
    for (slot, page) in [(0, 1), (1023, 1 << 35 - 1), (7, 0x7ffff_fdff)] as [(UInt32, UInt64)] {
      #expect(place(slot, page).slot == TaskSlot(slot))
      #expect(place(slot, page).page == PageNumber(page))
    }
  }

  @Test func oneLeafNeedsNoNode() throws {
    var map = try ReverseMap(capacity: 4)
    var link: UInt64 = 0
    #expect(map.first(of: link) == nil)
    #expect(map.add(place(1, 2), to: &link) == true)
    #expect(map.first(of: link) == place(1, 2))
    #expect(map.count(link) == 1)
    #expect(map.nodeCount == 0)
    map.remove(place(1, 2), from: &link)
    #expect(link == 0)
  }

  /// In a chain of any length, any place can be removed first.
  @Test(arguments: 2...14) func anyPlaceCanBeRemoved(length: Int) throws {
    for victim in 0..<length {
      var map = try ReverseMap(capacity: 16)
      var link: UInt64 = 0
      let all = (0..<length).map { place(3, UInt64($0) + 1) }
      for place in all { #expect(map.addAny(place, to: &link) == true) }
      map.remove(all[victim], from: &link)
      var left = all
      left.remove(at: victim)
      #expect(Set(map.places(link)) == Set(left.map(\.rawValue)))
      #expect(map.count(link) == length - 1)
      for place in left.reversed() { map.remove(place, from: &link) }
      #expect(link == 0)
      #expect(map.nodeCount == 0)
    }
  }

  @Test func withoutNodesASecondLeafIsRefusedAndNothingChanges() throws {
    var map = try ReverseMap(capacity: 1)
    var first: UInt64 = 0
    var second: UInt64 = 0
    for page in 1...3 as ClosedRange<UInt64> { #expect(map.add(place(0, page), to: &first) == true) }
    #expect(map.addAny(place(0, 4), to: &first) == false)
    #expect(map.count(first) == 3)
    #expect(map.add(place(0, 1), to: &second) == true)
    #expect(map.addAny(place(0, 2), to: &second) == false)
    #expect(map.places(second) == [place(0, 1).rawValue])
    #expect(map.nodeCount == 1)
    for page in 1...3 as ClosedRange<UInt64> { map.remove(place(0, page), from: &first) }
    #expect(map.add(place(0, 2), to: &second) == true)
  }

  @Test func aFrameHasABoundedNumberOfLeaves() throws {
    var map = try ReverseMap(capacity: 3000)
    var link: UInt64 = 0
    var added = 0
    while added < 9000, map.addAny(place(0, UInt64(added) + 1), to: &link) { added += 1 }
    #expect(added >= ReverseMap.maximumPlaces)
    #expect(added < ReverseMap.maximumPlaces + 3)
    #expect(map.count(link) == added)
  }

  @Test func theFirstThreePlacesAreNoSurplus() throws {
    var map = try ReverseMap(capacity: 8)
    var link: UInt64 = 0
    for page in 1...3 as ClosedRange<UInt64> { #expect(map.add(place(0, page), to: &link) == true) }
    #expect(map.add(place(0, 4), to: &link) == false)
    #expect(map.addSurplus(place(0, 4), to: &link) == true)
    map.remove(place(0, 1), from: &link)
    map.remove(place(0, 2), from: &link)
    #expect(map.add(place(0, 5), to: &link) == true)
    var surplus: [UInt64] = []
    map.forEach(in: link) { if $0.isSurplus { surplus.append($0.page.rawValue) } }
    #expect(surplus == [4])
  }

  /// Places that pass a filter can be removed at any position of the chain, in any combination.
  @Test(arguments: 2...14) func aWalkRemovesWhatItFinds(length: Int) throws {
    for victims in 0..<(1 << length) where length < 9 || victims.nonzeroBitCount < 4 {
      var map = try ReverseMap(capacity: 16)
      var link: UInt64 = 0
      let shown = (0...1).map { ContainerFrame(container: 3, id: FrameID(70 + $0)) }
      for index in 0..<length {
        let new = MappedPlace(
          TaskSlot(2), PageNumber(UInt64(index) + 1), showing: shown[victims >> index & 1], isWeak: index % 2 == 0)
        #expect(map.addAny(new, to: &link) == true)
      }
      var position = map.begin(link)
      var looked = 0
      while map.next(&position, .showing(shown[1]), looked: &looked) != nil { map.remove(at: &position, from: &link) }
      #expect(map.count(link) == length - victims.nonzeroBitCount)
      map.forEach(in: link) { #expect(victims >> ($0.page.rawValue - 1) & 1 == 0) }
    }
  }

  @Test func anUnknownLeafTraps() async {
    await #expect(processExitsWith: .failure) {
      var map = try ReverseMap(capacity: 4)
      var link: UInt64 = 0
      for page in 1...3 as ClosedRange<UInt64> { _ = map.add(place(0, page), to: &link) }
      map.remove(place(0, 9), from: &link)
    }
  }

  @Test(arguments: [1, 2, 3, 4] as [UInt64])
  func randomChangesAgreeWithADictionary(seed: UInt64) throws {
    var random = SeededGenerator(state: seed)
    let frames = 24
    var map = try ReverseMap(capacity: 60)
    var links = [UInt64](repeating: 0, count: frames)
    var model = [Set<UInt64>](repeating: [], count: frames)
    var refusals = 0
    for step in 0..<20_000 {
      let frame = Int.random(in: 0..<frames, using: &random)
      // Alternately grow and shrink, so that both an empty and a full map occur.
      if Int.random(in: 0..<10, using: &random) < ((step / 2000) % 2 == 0 ? 7 : 3) {
        let new = place(UInt32.random(in: 0..<1024, using: &random), UInt64.random(in: 1..<1 << 35, using: &random))
        guard !model[frame].contains(new.rawValue) else { continue }
        if map.addAny(new, to: &links[frame]) { model[frame].insert(new.rawValue) } else { refusals += 1 }
      } else if let old = model[frame].randomElement(using: &random) {
        map.remove(MappedPlace(rawValue: old), from: &links[frame])
        model[frame].remove(old)
      }
      let comment = Comment(rawValue: "seed \(seed), step \(step)")
      try #require(map.count(links[frame]) == model[frame].count, comment)
      try #require(Set(map.places(links[frame])) == model[frame], comment)
      try #require(
        map.first(of: links[frame]).map { model[frame].contains($0.location) } ?? model[frame].isEmpty, comment)
    }
    #expect(refusals > 0)
    for frame in 0..<frames {
      for old in model[frame] { map.remove(MappedPlace(rawValue: old), from: &links[frame]) }
    }
    #expect(map.nodeCount == 0)
    #expect(links.allSatisfy { $0 == 0 })
  }
}
