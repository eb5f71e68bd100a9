// Loading programs, and why that, or starting a task of one, may fail.

internal import PhysicalMemory

extension Machine {
  /// Checks an image and loads it. Its tasks see `name` as their argv[0]. Its frames must be free: others are not asked
  /// for them.
  public func load(name: String, bytes: [UInt8]) throws(MachineError) -> Program {
    try load(name: Array(name.utf8), bytes: bytes)
  }

  /// The same by a name that need not be text.
  public func load(name: [UInt8], bytes: [UInt8]) throws(MachineError) -> Program {
    let image: ELFImage
    do throws(ELFError) { image = try ELFImage(bytes: bytes) } catch { throw .badImage(name: visibleName(name), error) }
    do throws(CallFailure) {
      return Program(name: name, image: image, number: try server.loadImage(image.imageSegments))
    } catch {
      throw loadFailure(error, visibleName(name), image)
    }
  }

  /// Why a program could not be loaded. Nothing is asked back for one: nobody waits here on whose behalf that could be done.
  private func loadFailure(_ error: CallFailure, _ name: String, _ image: ELFImage) -> MachineError {
    let (statistics, needed) = (server.statistics, image.filePageCount)
    if error == .invalid { return .badLayout(name: name) }
    if statistics.images >= PhysicalMemoryServer.mostImages { return .tooManyPrograms(PhysicalMemoryServer.mostImages) }
    let free = statistics.allocatableFrames - statistics.allocatedFrames
    let available = statistics.allocatableFrames - statistics.claimedFrames
    if needed <= available, needed > free { return .lent(name: name, needed: needed, free: free) }
    return frameFailure(name, image, needed: needed, available: available)
  }

  /// - Parameter needed: frames, if it is for want of them.
  func frameFailure(_ name: String, _ image: ELFImage, needed: Int, available: Int) -> MachineError {
    needed > available
      ? .tooSmall(name: name, needed: image.frameCount, available: available)
      : .noMemory("the server's records of \(name), or its page tables")
  }
}
