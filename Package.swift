// swift-tools-version: 6.2
import PackageDescription

/// Every host target is built with these; a warning is an error.
let strict: [SwiftSetting] = [
  .strictMemorySafety(),
  .treatAllWarnings(as: .error),
  .enableUpcomingFeature("InternalImportsByDefault"),
  .enableUpcomingFeature("MemberImportVisibility"),
]

let system: Target.Dependency = .product(name: "SystemPackage", package: "swift-system")

let package = Package(
  name: "physmem",
  products: [
    .library(name: "PhysicalMemory", targets: ["PhysicalMemory"]),
    .library(name: "Machine", targets: ["Machine"]),
    .executable(name: "physmem", targets: ["physmem"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-system", from: "1.8.1"),
    .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
  ],
  targets: [
    // C headers only: what Swift cannot import, and the contract with the guests.
    .target(name: "CKVM"),
    .target(name: "CGuestABI"),
    // What must run before Swift's runtime.
    .target(name: "CStart"),

    // The host, from the ground up.
    .target(name: "GuestMemory", dependencies: ["CKVM", system], swiftSettings: strict),
    .target(name: "KVM", dependencies: ["CKVM", system], swiftSettings: strict),
    .target(name: "Paging", dependencies: ["GuestMemory"], swiftSettings: strict),
    .target(name: "PhysicalMemory", dependencies: ["GuestMemory", "CGuestABI"], swiftSettings: strict),
    .target(
      name: "Machine",
      dependencies: ["CGuestABI", "CKVM", "GuestMemory", "KVM", "Paging", "PhysicalMemory", system],
      swiftSettings: strict),

    // The server without a machine: a model of one, a naive model of the server, and chance.
    .target(name: "Simulation", dependencies: ["PhysicalMemory", "GuestMemory", "CGuestABI"], swiftSettings: strict),
    .executableTarget(
      name: "simulate",
      dependencies: ["Simulation", .product(name: "ArgumentParser", package: "swift-argument-parser")],
      swiftSettings: strict),

    // Files that the command and the compiler write for their user.
    .target(name: "OutputFiles", swiftSettings: strict),

    // The guests: compiled and linked by the toolchain's clang and ld.lld, embedded in one Swift file.
    .executableTarget(name: "GuestBuilder", dependencies: ["OutputFiles"], swiftSettings: strict),
    .plugin(name: "GuestBuildPlugin", capability: .buildTool(), dependencies: ["GuestBuilder"]),
    .target(
      name: "GuestImages",
      path: "guest",
      exclude: ["include", "library", "swift", "tests", "examples", "servers", "bench"],
      sources: ["GuestImages.swift"],
      swiftSettings: strict,
      plugins: ["GuestBuildPlugin"]),

    // The command.
    .executableTarget(
      name: "physmem",
      dependencies: [
        "CStart", "OutputFiles", "Machine", "PhysicalMemory", "GuestMemory", "KVM", "GuestImages", system,
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "Histogram", package: "hdrhistogram-swift"),
      ],
      swiftSettings: strict,
      // One file without relocations: it starts in a third of the time, and runs where there is no toolchain.
      linkerSettings: [
        .unsafeFlags(["-static-stdlib", "-static-executable"], .when(configuration: .release)),
        .linkedLibrary("_FoundationCShims", .when(configuration: .release)),
        .linkedLibrary("_FoundationCollections", .when(configuration: .release)),
      ]),

    .testTarget(name: "GuestMemoryTests", dependencies: ["GuestMemory"], swiftSettings: strict),
    .testTarget(name: "PagingTests", dependencies: ["Paging", "GuestMemory"], swiftSettings: strict),
    .testTarget(
      name: "PhysicalMemoryTests", dependencies: ["PhysicalMemory", "Simulation", "GuestMemory", "CGuestABI"],
      swiftSettings: strict),
    .testTarget(
      name: "MachineTests",
      dependencies: ["Machine", "PhysicalMemory", "GuestMemory", "KVM", "GuestImages", "CGuestABI"],
      swiftSettings: strict),
    .testTarget(
      name: "CommandTests",
      dependencies: [
        "physmem", "OutputFiles", "PhysicalMemory", "Machine", "KVM", system,
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ],
      swiftSettings: strict),
  ],
  swiftLanguageModes: [.v6]
)
