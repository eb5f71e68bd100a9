// Messages between tasks: endpoints, their messages and their names (R20, R40).

import CPhysmem

/// Eight words and four capabilities, sent to a task or back.
public struct Message {
  fileprivate var content = pm_message()

  public init(words: UInt64...) {
    precondition(words.count <= Int(PM_MESSAGE_WORDS))
    for (index, word) in words.enumerated() { self[word: index] = word }
  }

  /// The words, from 0 to 7.
  public subscript(word index: Int) -> UInt64 {
    get {
      precondition((0..<Int(PM_MESSAGE_WORDS)).contains(index))
      // SAFETY: the index is inside the C array; the same holds below.
      return unsafe withUnsafeBytes(of: content.words) { unsafe $0.load(fromByteOffset: 8 * index, as: UInt64.self) }
    }
    set {
      precondition((0..<Int(PM_MESSAGE_WORDS)).contains(index))
      unsafe withUnsafeMutableBytes(of: &content.words) {
        unsafe $0.storeBytes(of: newValue, toByteOffset: 8 * index, as: UInt64.self)
      }
    }
  }

  /// The capabilities, from 0 to 3: handles of the task; 0 for none.
  public subscript(capability index: Int) -> UInt32 {
    get {
      precondition((0..<Int(PM_MESSAGE_CAPS)).contains(index))
      return unsafe withUnsafeBytes(of: content.caps) { unsafe $0.load(fromByteOffset: 4 * index, as: UInt32.self) }
    }
    set {
      precondition((0..<Int(PM_MESSAGE_CAPS)).contains(index))
      unsafe withUnsafeMutableBytes(of: &content.caps) {
        unsafe $0.storeBytes(of: newValue, toByteOffset: 4 * index, as: UInt32.self)
      }
    }
  }

  /// Sends a capability and gives it up.
  public mutating func move(_ capability: UInt32, at index: Int) {
    self[capability: index] = capability
    content.moves |= 1 << UInt32(index)
  }

  /// Drops all capabilities that came with the message: callers may send unwanted ones.
  public mutating func dropCapabilities() { unsafe pm_message_drop_caps(&content) }

  /// The sender's task id, written by the server.
  public var sender: UInt64 { content.sender }

  /// A message for the same call without words and capabilities, to be filled with the reply.
  public var emptied: Message {
    var message = Message()
    message.content.reply = content.reply
    return message
  }
}

/// Where messages are sent to. The value owns the handle; its creator's handle is the endpoint, which ends with it.
@frozen
public struct Endpoint: ~Copyable {
  /// The handle in the C interface.
  public let handle: UInt32

  /// No timeout.
  public static var forever: UInt64 { UInt64.max }

  /// Creates an endpoint, to receive on.
  public init() throws(PMError) {
    var handle: pm_cap_t = 0
    // SAFETY: the pointer is used within the call only; the same holds below.
    try PMError.check(unsafe pm_endpoint_create(&handle))
    self.handle = handle
  }

  /// Looks up an endpoint, to call; waits until one of that name is registered.
  public init(named name: String, timeout: UInt64 = Endpoint.forever) throws(PMError) {
    var handle: pm_cap_t = 0
    let result = unsafe name.withCString { unsafe pm_name_lookup($0, &handle, timeout) }
    try PMError.check(result)
    self.handle = handle
  }

  /// Takes ownership of a handle, such as one from a message.
  public init(handle: UInt32) { self.handle = handle }

  deinit { _ = pm_cap_drop(handle) }

  /// Gives the handle to the caller, for example to be moved in a message.
  public consuming func take() -> UInt32 {
    let handle = handle
    discard self
    return handle
  }

  /// Gives the task's own endpoint a name.
  public func register(as name: String) throws(PMError) {
    try PMError.check(unsafe name.withCString { unsafe pm_name_register($0, handle) })
  }

  /// Sends the message and waits for the reply, which replaces it. Timeouts are in microseconds.
  public func call(_ message: inout Message, timeout: UInt64 = Endpoint.forever) throws(PMError) {
    try PMError.check(unsafe pm_call(handle, &message.content, timeout))
    message.content.moves = 0
  }

  /// Waits for a call.
  public func receive(timeout: UInt64 = Endpoint.forever) throws(PMError) -> Message {
    var message = Message()
    try PMError.check(unsafe pm_receive(handle, &message.content, timeout))
    return message
  }

  /// Answers the message's call.
  public static func reply(_ message: consuming Message) throws(PMError) {
    try PMError.check(unsafe pm_reply(&message.content))
  }

  /// Answers the message's call and waits for the next, which replaces the message.
  public func replyAndReceive(_ message: inout Message, timeout: UInt64 = Endpoint.forever) throws(PMError) {
    try PMError.check(unsafe pm_reply_receive(handle, &message.content, timeout))
  }
}
