// `#expect(value.method())` and `#require(value.method())` copy `value`, to show it when they fail, so they cannot take
// a method of a noncopyable value. `#expect(value.method() == true)` can, and this in place of `#require`.

import Testing

/// The value, or a failed test if there is none.
func some<Value>(_ value: Value?, sourceLocation: SourceLocation = #_sourceLocation) throws -> Value {
  try #require(value, sourceLocation: sourceLocation)
}
