// The sections of an executable. They only describe the program, so a table that is missing or malformed counts as
// empty and is not an error.

/// The section headers of an image.
struct ELFSections {
  let headers: [ELFSectionHeader]
  private let reader: ByteReader
  private let names: Range<Int>

  init(_ image: ELFImage) {
    reader = ByteReader(bytes: image.bytes)
    // A table with e_shnum 0 (65,280 sections or more) is not read: no guest has that many.
    guard let header = ELFFileHeader(reader), header.sectionHeaderSize == ELFSectionHeader.size,
      let table = reader.range(
        offset: header.sectionHeaderOffset,
        count: UInt64(header.sectionHeaderCount) * UInt64(ELFSectionHeader.size)
      )
    else {
      headers = []
      names = 0..<0
      return
    }
    let reader = self.reader
    let headers = stride(from: table.lowerBound, to: table.upperBound, by: ELFSectionHeader.size)
      .compactMap { ELFSectionHeader(reader, at: $0) }
    self.headers = headers
    let index = Int(header.sectionNameIndex)
    names = index < headers.count ? Self.fileRange(of: headers[index], reader) ?? 0..<0 : 0..<0
  }

  /// A section's bytes in the file; nil if it has none (SHT_NOBITS), is compressed, or extends past the file's end.
  func fileRange(of header: ELFSectionHeader) -> Range<Int>? { Self.fileRange(of: header, reader) }

  /// The bytes of the first section with this name.
  func contents(named name: String) -> ArraySlice<UInt8>? {
    let wanted = Array(name.utf8)
    for header in headers {
      // One byte more than the name is read, so that a longer name does not match.
      let start = names.lowerBound + Int(header.nameOffset)
      guard reader.string(from: start, to: names.upperBound, limit: wanted.count + 1).elementsEqual(wanted)
      else { continue }
      return fileRange(of: header).map { reader.bytes[$0] }
    }
    return nil
  }

  private static func fileRange(of header: ELFSectionHeader, _ reader: ByteReader) -> Range<Int>? {
    guard header.type != ELFSectionHeader.typeNoBits, header.flags & ELFSectionHeader.flagCompressed == 0 else {
      return nil
    }
    return reader.range(offset: header.offset, count: header.byteCount)
  }
}
