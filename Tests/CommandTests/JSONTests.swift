import Testing

@testable import physmem

@Suite struct JSONTests {
  @Test(
    arguments: [
      (.null, "null"), (.bool(true), "true"), (.bool(false), "false"), (.integer(0), "0"),
      (.integer(.min), "-9223372036854775808"), (.integer(.max), "9223372036854775807"), (.double(0.1), "0.1"),
      (.double(-2), "-2.0"), (.double(1e300), "1e+300"), (.double(.leastNonzeroMagnitude), "5e-324"),
      (.double(.infinity), "null"),
      (.double(-.infinity), "null"), (.double(.nan), "null"), (.array([]), "[]"), (.object([]), "{}"),
      (.array([1, "a", nil, [true]]), #"[1,"a",null,[true]]"#),
    ] as [(JSONValue, String)]
  )
  func `Values`(value: JSONValue, text: String) {
    #expect(value.description == text)
  }

  @Test(arguments: [
    ("", #""""#), ("plain", #""plain""#), (#"a"b\c/d"#, #""a\"b\\c/d""#), ("\n\r\t", #""\n\r\t""#),
    ("\0\u{1}\u{1f}", #""\u0000\u0001\u001f""#), ("\u{1b}[31m", #""\u001b[31m""#),
    ("\u{7f}\u{9b}", #""\u007f\u009b""#), ("größe µ → 😀", #""größe µ → 😀""#), ("\r\n", #""\r\n""#),
    ("e\u{301}", "\"e\u{301}\""),
  ])
  func `Strings are escaped, as values and as keys`(string: String, text: String) {
    #expect(JSONValue.string(string).description == text)
    #expect(JSONValue.object([.init(key: string, value: nil)]).description == "{\(text):null}")
  }

  @Test func `Members keep their order, and the text is deterministic`() {
    let value: JSONValue = ["z": 1, "a": [["y": 2.5, "b": "x"]], "m": ["deep": ["er": [nil, false]]]]
    #expect(value.description == #"{"z":1,"a":[{"y":2.5,"b":"x"}],"m":{"deep":{"er":[null,false]}}}"#)
    #expect(value.description == value.description)
  }
}

@Suite struct TableTests {
  @Test func `Columns are aligned, and lines end with their last cell`() {
    #expect(
      alignedTable([["name", "verdict", "detail"], ["a", "ok", ""], ["größer", "missing", "x y"], []]) == """
        name    verdict  detail
        a       ok
        größer  missing  x y


        """
    )
    #expect(alignedTable([]) == "")
  }
}
