// Loading programs, and the errors of loading them and of starting their tasks.

internal import PhysicalMemory

extension Machine {
  /// Checks an image and loads it. Its frames must be free: no extra frames are reclaimed for it.
  /// - Parameters:
  ///   - name: the argv[0] of its tasks.
  ///   - bytes: the whole ELF file.
  /// - Throws: `MachineError.badImage`, `.badLayout`, `.tooManyPrograms`, `.lent`, `.tooSmall` or `.noMemory`.
  public func load(name: String, bytes: [UInt8]) throws(MachineError) -> Program {
    try load(name: Array(name.utf8), bytes: bytes)
  }

  /// Loads an image whose name need not be UTF-8; otherwise as `load(name:bytes:)`.
  public func load(name: [UInt8], bytes: [UInt8]) throws(MachineError) -> Program {
    let image: ELFImage
    do throws(ELFError) { image = try ELFImage(bytes: bytes) } catch { throw .badImage(name: visibleName(name), error) }
    do throws(CallFailure) {
      return Program(name: name, image: image, number: try server.loadImage(image.imageSegments))
    } catch {
      throw loadFailure(error, visibleName(name), image)
    }
  }

  /// Why a program could not be loaded. Frames are not reclaimed for a program: no task waits for it on whose claim
  /// that could be based.
  private func loadFailure(_ error: CallFailure, _ name: String, _ image: ELFImage) -> MachineError {
    let (statistics, needed) = (server.statistics, image.filePageCount)
    if error == .invalid { return .badLayout(name: name) }
    if statistics.images >= PhysicalMemoryServer.mostImages { return .tooManyPrograms(PhysicalMemoryServer.mostImages) }
    let free = statistics.allocatableFrames - statistics.allocatedFrames
    let available = statistics.allocatableFrames - statistics.claimedFrames
    if needed <= available, needed > free { return .lent(name: name, needed: needed, free: free) }
    return frameFailure(name, image, needed: needed, available: available)
  }

  /// - Parameter needed: number of frames, if the failure was for lack of them.
  func frameFailure(_ name: String, _ image: ELFImage, needed: Int, available: Int) -> MachineError {
    needed > available
      ? .tooSmall(name: name, needed: image.frameCount, available: available)
      : .noMemory("the server's records of \(name), or its page tables")
  }
}
