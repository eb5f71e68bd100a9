// The demands of Embedded Swift's numbers on the library. The cases are listed in swift_numbers.c.

import Physmem

/// Prints where a check failed, and ends the task with 1.
func check(_ condition: Bool, line: Int = #line) {
  guard !condition else { return }
  print("swift_numbers.swift:\(line): failed")
  ThisTask.exit(1)
}

/// The same number, unknown to the compiler.
@inline(never)
@_optimize(none)
func opaque<Number>(_ number: Number) -> Number { number }

@_cdecl("test_rounded")
public func roundedCase() {
  check(opaque(2.5).rounded() == 3)
  check(opaque(2.5).rounded(.toNearestOrEven) == 2)
  check(opaque(-2.5).rounded(.up) == -2)
  check(opaque(-2.5).rounded(.down) == -3)
  check(opaque(-2.5).rounded(.towardZero) == -2)
  check(opaque(2.25).rounded(.awayFromZero) == 3)
  check(opaque(Float(2.5)).rounded() == 3)
  check(opaque(Float(2.5)).rounded(.toNearestOrEven) == 2)
  check(opaque(Float(-2.5)).rounded(.up) == -2)
  check(opaque(Float(-2.5)).rounded(.down) == -3)
  check(opaque(Float(-2.5)).rounded(.towardZero) == -2)
  check(opaque(6.25).squareRoot() == 2.5)
  check(opaque(Float(6.25)).squareRoot() == 2.5)
  check(opaque(5.5).truncatingRemainder(dividingBy: 2) == 1.5)
  check(opaque(Float(5.5)).truncatingRemainder(dividingBy: 2) == 1.5)
  check(opaque(5.5).remainder(dividingBy: 2) == -0.5)
  check(opaque(0x1.0000000000001p0).addingProduct(1, 1) == 2)
  check(opaque(Float(2)).addingProduct(3, 4) == 14)
}

@_cdecl("test_wide")
public func wideCase() {
  let number = opaque(UInt128(1) << 100 + 5)
  check(number / 10 * 10 + number % 10 == number)
  check(opaque(-Int128(number)) / 7 == -Int128(number / 7))
  check(opaque(-Int128(number)) % 7 == -Int128(number % 7))
  check(number.multipliedReportingOverflow(by: number).overflow)
  check(opaque(Int128(number)).multipliedReportingOverflow(by: -1).partialValue == -Int128(number))
  check(Double(opaque(UInt128(3) << 99)) == 0x1.8p100)
  check(UInt128(opaque(0x1.8p100)) == UInt128(3) << 99)
  check(Int128(opaque(-0x1.8p100)) == -(Int128(3) << 99))
}

@_cdecl("test_parsed")
public func parsedCase() {
  check(Double(opaque("1.5")) == 1.5)
  check(Double(opaque("-0x1.8p3")) == -12)
  check(Double(opaque("1e400")) == .infinity)
  check(Double(opaque("")) == nil)
  check(Double(opaque(" 1")) == nil)
  check(Double(opaque("1 ")) == nil)
  check(Double(opaque("1.5x")) == nil)
  check(Float(opaque("1.5")) == 1.5)
  check(Float(opaque("16777217")) == 0x1p24)
}
