// Builds the guest programs with the toolchain's own compiler whenever the package is built, and embeds them in the
// target that the plugin is applied to.

import Foundation
import PackagePlugin

@main
struct GuestBuildPlugin: BuildToolPlugin {
  func createBuildCommands(context: PluginContext, target: Target) throws -> [Command] {
    let guest = target.directoryURL
    let contract = context.package.directoryURL.appending(path: "Sources/CGuestABI/include")
    let generated = context.pluginWorkDirectoryURL.appending(path: "GuestImages+Generated.swift")
    return [
      .buildCommand(
        displayName: "Building the guest programs",
        executable: try context.tool(named: "GuestBuilder").url,
        arguments: [
          "embed",
          "--clang", try context.tool(named: "clang").url.path,
          "--guest", guest.path,
          "--contract", contract.path,
          "--objects", context.pluginWorkDirectoryURL.appending(path: "objects").path,
          "-o", generated.path,
        ],
        inputFiles: files(in: guest) + files(in: contract),
        outputFiles: [generated]
      )
    ]
  }

  /// Every file of a folder: the build runs the command again only when one of those it was told of has changed.
  private func files(in folder: URL) -> [URL] {
    let found = FileManager.default.enumerator(at: folder, includingPropertiesForKeys: nil)
    return (found?.compactMap { $0 as? URL } ?? [])
      .filter { !$0.hasDirectoryPath }
      .sorted { $0.path < $1.path }
  }
}
