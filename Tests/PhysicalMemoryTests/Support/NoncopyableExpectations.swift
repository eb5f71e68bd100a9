// `#expect(value.method())` and `#require(value.method())` copy `value` to show it in a failure, so they cannot call a
// method of a noncopyable value. `#expect(value.method() == true)` can, and this function replaces `#require`.

import Testing

/// Returns the value, or fails the test if it is nil.
func some<Value>(_ value: Value?, sourceLocation: SourceLocation = #_sourceLocation) throws -> Value {
  try #require(value, sourceLocation: sourceLocation)
}
