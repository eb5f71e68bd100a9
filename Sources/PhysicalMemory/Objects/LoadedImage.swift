// Programs, loaded once: their pages are contents of a container of the server's own, and each task that runs one
// gets logical copies. Text is therefore in memory once, whoever runs it.

internal import CGuestABI
public import GuestMemory

/// A part of a program as it is to be mapped.
public struct ImageSegment: Sendable {
  public let start: PageNumber
  public let pageCount: Int
  public let isWritable: Bool
  public let isExecutable: Bool
  /// The bytes from the image's file, and where in the first page they begin. The rest is zero.
  public let bytes: ArraySlice<UInt8>
  public let offset: Int

  public init(
    start: PageNumber, pageCount: Int, isWritable: Bool, isExecutable: Bool, bytes: ArraySlice<UInt8>, offset: Int
  ) {
    precondition(pageCount > 0 && pageCount <= Int(PM_USER_END >> 12), "a segment of no pages, or too many")
    precondition((0..<4096).contains(offset) && bytes.count <= pageCount << 12 - offset, "bytes outside of the segment")
    self.start = start
    self.pageCount = pageCount
    self.isWritable = isWritable
    self.isExecutable = isExecutable
    self.bytes = bytes
    self.offset = offset
  }

  /// Pages that hold bytes of the file; those behind them begin as zeros.
  public var filePages: Int { bytes.isEmpty ? 0 : (offset + bytes.count + 4095) >> 12 }

  var flags: MappingFlags {
    var flags: MappingFlags = [.read, .lazy]
    if isWritable { flags.insert([.write, .forceWrite]) }
    if isExecutable { flags.insert(.execute) }
    return flags
  }
}

struct LoadedImage: ~Copyable {
  struct Segment {
    let start: PageNumber
    let pageCount: Int
    let filePages: Int
    let flags: MappingFlags
    /// The image container's id of the first page.
    let firstFrame: FrameID
  }

  let container: ContainerSlot
  let segments: [Segment]
  /// Frames a task needs for it, the stack not counted.
  var pageCount: Int { segments.reduce(0) { $0 + $1.pageCount } }
  var taskCount = 0
}

/// A program whose pages are being loaded, in bounded steps.
struct LoadingPlan {
  let container: ContainerSlot
  /// In order.
  fileprivate let parts: [ImageSegment]
  fileprivate var segments: [LoadedImage.Segment] = []
  /// The part, the next of its pages from the file, and its id.
  fileprivate var part = 0
  fileprivate var page = 0
  fileprivate var id: FrameID = 0

  fileprivate init(container: ContainerSlot, parts: [ImageSegment]) {
    self.container = container
    self.parts = parts
  }

  fileprivate mutating func finishPart() {
    let part = parts[part]
    segments.append(
      LoadedImage.Segment(
        start: part.start, pageCount: part.pageCount, filePages: part.filePages, flags: part.flags,
        firstFrame: FrameID(id.rawValue - UInt32(part.filePages))))
    self.part += 1
    page = 0
  }
}

extension ServerState {
  private static let pagesLoadedInOneStep = 64

  /// Takes what a program's pages need. They are withdrawn from what tasks can have for as long as the image is loaded;
  /// nobody is asked for them.
  /// PM_EINVAL: segments that overlap, or that lie outside of a task's memory or in its stack.
  mutating func planLoading(_ parts: [ImageSegment]) throws(CallFailure) -> LoadingPlan {
    let parts = parts.sorted { $0.start < $1.start }
    guard Self.haveRoom(parts) else { throw .invalid }
    let filePages = parts.reduce(0) { $0 + $1.filePages }
    guard ledger.withdraw(filePages) else { throw .noMemory }
    let container: ContainerSlot
    do throws(CallFailure) {
      container = try makeContainer(owner: .server).slot
    } catch {
      restore(filePages)
      throw error
    }
    containers[container].frames.fill(0, count: filePages, .empty)
    return LoadingPlan(container: container, parts: parts)
  }

  /// One step of loading.
  /// - Returns: the image; nil: there is more to be done.
  /// - Throws: when there is no frame, or no room for an image; the container is to be unloaded then.
  mutating func continueLoading(_ plan: inout LoadingPlan) throws(CallFailure) -> ImageNumber? {
    var left = Self.pagesLoadedInOneStep
    while plan.part < plan.parts.count {
      let part = plan.parts[plan.part]
      while plan.page < part.filePages {
        guard left > 0 else { return nil }
        guard let frame = makeResident(plan.container, plan.id) else { throw .noMemory }
        write(part, page: plan.page, to: frame)
        plan.id = plan.id.advanced(by: 1)
        plan.page += 1
        left -= 1
      }
      plan.finishPart()
    }
    guard let image = images.insert(LoadedImage(container: plan.container, segments: plan.segments)) else {
      throw .noMemory
    }
    return image
  }

  /// Whether segments, in order, lie one after another between the first page and the stack.
  private static func haveRoom(_ parts: [ImageSegment]) -> Bool {
    var free = PM_USER_START >> 12
    let end = PM_STACK_TOP >> 12 - UInt64(PM_STACK_PAGES)
    for part in parts {
      guard part.start.rawValue >= free, part.start.rawValue < end,
        UInt64(part.pageCount) <= end - part.start.rawValue
      else { return false }
      free = part.start.rawValue + UInt64(part.pageCount)
    }
    return true
  }

  /// Copies what the file has for one page of a segment.
  private func write(_ part: ImageSegment, page: Int, to frame: FrameNumber) {
    let first = max(page << 12, part.offset)
    let last = min((page + 1) << 12, part.offset + part.bytes.count)
    let bytes = part.bytes[(part.bytes.startIndex + first - part.offset)..<(part.bytes.startIndex + last - part.offset)]
    memory.write(frame, at: first & 4095, bytes.span)
  }

  /// Forgets an image; PM_EBUSY while a task runs it.
  /// - Returns: its container, which is to be unloaded.
  mutating func removeImage(_ image: ImageNumber) throws(CallFailure) -> ContainerSlot {
    guard images.contains(image) else { throw .contentGone }
    guard images[image].taskCount == 0 else { throw .busy }
    return images.remove(at: image).container
  }
}

extension PhysicalMemoryServer {
  /// Programs that may be loaded at a time.
  public static let mostImages = 1 << 10

  public func loadImage(_ segments: [ImageSegment]) throws(CallFailure) -> ImageNumber {
    var plan = try withState { (state) throws(CallFailure) in try state.planLoading(segments) }
    do throws(CallFailure) {
      while true {
        let image = try withState { (state) throws(CallFailure) in try state.continueLoading(&plan) }
        if let image { return image }
      }
    } catch {
      unload(plan.container)
      throw error
    }
  }

  /// Gives back an image's frames; PM_EBUSY while a task runs it.
  public func unloadImage(_ image: ImageNumber) throws(CallFailure) {
    unload(try withState { (state) throws(CallFailure) in try state.removeImage(image) })
  }

  private func unload(_ container: ContainerSlot) {
    withState { $0.containers[container].isDying = true }
    while !withState({ $0.continueDestroying(container) }) {}
  }
}
