// Sparse arrays: zero at the start, as large as the address space permits, and bounds checked.

import Testing

@testable import PhysicalMemory

@Suite struct SparseArrayTests {
  @Test func elementsBeginAsZeroAndKeepWhatIsStored() throws {
    var array = try SparseArray<UInt64>(count: 5000)
    for index in 0..<5000 { #expect(array[index] == 0) }
    for index in 0..<5000 { array[index] = UInt64(index) * 3 }
    array[17] += 1
    for index in 0..<5000 { #expect(array[index] == UInt64(index) * 3 + (index == 17 ? 1 : 0)) }
  }

  @Test func anArrayMayBeFarLargerThanMemory() throws {
    let count = 1 << 37
    var array = try SparseArray<UInt64>(count: count)
    array[0] = 1
    array[count - 1] = 2
    #expect(array[0] == 1)
    #expect(array[count / 2] == 0)
    #expect(array[count - 1] == 2)
  }

  @Test func addressSpaceThatIsNotThereIsReported() {
    #expect(throws: ReservationError.self) { _ = try SparseArray<UInt8>(count: 1 << 60).count }
  }

  @Test func anIndexBeyondTheEndTraps() async {
    await #expect(processExitsWith: .failure) {
      let array = try SparseArray<UInt8>(count: 100)
      _ = array[100]
    }
    await #expect(processExitsWith: .failure) {
      var array = try SparseArray<UInt8>(count: 100)
      array[-1] = 1
    }
  }
}
