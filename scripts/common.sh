# Functions of demo, test and the other scripts. Sourced, not run.

# Prints one sentence on stderr, and exits.
fail() { printf '%s: %s\n' "$(basename "$0")" "$1" >&2; exit "${2:-1}"; }

# Prints the current step on stderr.
say() { printf '== %s\n' "$1" >&2; }

# Checks for a Swift toolchain and the C library's headers, the only requirements.
require_tools() {
  command -v swift >/dev/null || fail "there is no swift on the PATH: install a Swift 6.3 toolchain"
  swift --version 2>/dev/null | grep -Eq 'Swift version (6\.([3-9]|[1-9][0-9])|[7-9])' ||
    fail "this swift is older than 6.3: install a Swift 6.3 toolchain"
  if [ ! -e /usr/include/stdlib.h ]; then
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null ||
      fail "the C library's headers are missing: install the package libc6-dev"
    say "installing libc6-dev"
    { apt-get update -qq && apt-get install -y -qq libc6-dev; } >/dev/null ||
      fail "libc6-dev could not be installed: install it by hand"
  fi
}

# Builds the command for release and sets physmem to its path.
build_command() {
  say "building physmem for release (the first time takes a minute or two)"
  swift build -c release --product physmem ${CI:+-q} >&2 || fail "the build failed"
  physmem=$(swift build -c release --show-bin-path)/physmem
}

# Builds the simulation for release and sets simulate to its path.
build_simulation() {
  say "building the simulation for release"
  swift build -c release --product simulate ${CI:+-q} >&2 || fail "the build failed"
  simulate=$(swift build -c release --show-bin-path)/simulate
}

# True if /dev/kvm is usable.
have_kvm() { [ -r /dev/kvm ] && [ -w /dev/kvm ]; }
