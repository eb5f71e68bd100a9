# The machine that scripts/test-backends boots: a Debian kernel with kvm_amd under QEMU's translator, and an initramfs
# that holds the command, the test runner, the kernel's modules and scripts/backend-init.c. Sourced, not run.

cache=$PWD/.cache/backends
root=$cache/root
# In seconds, for a machine that boots in `quiet_boot`: how long it may say nothing, and how long it may take. One that
# takes longer to boot has as many times as long, since this host is slow or busy then.
quiet_boot=6
silence_limit=240
machine_time_limit=1500

# Where the packages cannot be had nothing is proved; that is a failure only where it must not go unnoticed.
unavailable() {
  [ -z "${CI:-}" ] || fail "$1"
  say "skipped: $1"
  exit 0
}

# The release's backports have a newer QEMU. Names their suite, and has apt know it beside the host's own sources, from
# where the host has its release; in lists of its own, so no rights are needed.
use_backports() {
  local codename sources known mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  [ -n "$codename" ] || return 1
  backports=$codename-backports
  sources=$cache/apt/sources.list
  mkdir -p "$cache"/apt/lists/partial "$cache"/apt/archives/partial
  eval "$(apt-config shell main Dir::Etc::sourcelist/f)"
  cat "$main" >"$sources" 2>/dev/null || true
  known=$(apt-get update --print-uris | sed -nE "s|^'(.*)/dists/([^/']+)/InRelease'.*|\1 \2|p")
  mirror=$(awk -v suite="$codename" '$2 == suite { print $1; exit }' <<<"$known")
  if ! grep -q " $backports\$" <<<"$known"; then
    [ -n "$mirror" ] || return 1
    [ -e "$keyring" ] || keyring=
    echo "deb ${keyring:+[signed-by=$keyring] }$mirror $backports main" >>"$sources"
  fi
  apt_options=(-o "Dir::Etc::sourcelist=$sources" -o "Dir::State::lists=$cache/apt/lists" -o "Dir::Cache=$cache/apt")
  apt-get "${apt_options[@]}" update -qq
}

# The packages, a name and a version each: QEMU with what it needs and the host lacks, and the newest kernel of the kind.
package_names() {
  local kernel qemu
  kernel=$(apt-cache "${apt_options[@]}" depends linux-image-cloud-amd64 |
    awk '$1 == "Depends:" && /linux-image-[0-9]/ { print $2; exit }')
  [ -n "$kernel" ] || return 1
  qemu=$(apt-get "${apt_options[@]}" install -s ${backports:+-t "$backports"} --no-install-recommends \
    qemu-system-x86 cpio | sed -nE 's/^Inst ([^ ]+) (\[[^]]*\] )?\(([^ ]+) .*/\1=\3/p') || return 1
  echo "$qemu" "$kernel"
}

# Sets names to the packages with the backports' QEMU, else with the one that the host's apt offers.
find_packages() {
  apt_options=()
  backports=
  use_backports >&2 && names=$(package_names) && return 0
  say "the release's backports cannot be had: QEMU is the one that the host's apt offers"
  apt_options=()
  backports=
  names=$(package_names 2>/dev/null) && return 0
  [ "$(id -u)" = 0 ] && apt-get update -qq >&2 || true
  names=$(package_names) || unavailable "Debian's packages qemu-system-x86 and linux-image-cloud-amd64 are not known to apt"
}

# Unpacks Debian's packages into the cache, once. Nothing is installed, so no rights are needed.
fetch_packages() {
  # Its name tells what is in the cache: whoever changes that gives it another one.
  local complete=$cache/complete.backports names package
  if [ ! -e "$complete" ]; then
    say "fetching QEMU and a Debian kernel into ${cache#"$PWD"/} (once)"
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
      unavailable "QEMU and a kernel come from Debian's packages, and there is no apt-get here"
    rm -rf "$root" "$cache"/{apt,packages,complete*}
    mkdir -p "$cache/packages" "$root"
    find_packages
    (cd "$cache/packages" && apt-get "${apt_options[@]}" download -qq $names >&2) ||
      unavailable "Debian's packages could not be fetched"
    for package in "$cache"/packages/*.deb; do dpkg-deb -x "$package" "$root" || fail "$package cannot be unpacked"; done
    rm -r "$cache/packages"
    touch "$complete"
  fi
  say "$(from_cache qemu-system-x86_64 --version | head -n 1), $(cd "$root/boot" && echo vmlinuz-*)"
}

# Runs a program of the cache, else of the host's, with the cache's libraries.
from_cache() {
  PATH=$root/usr/bin:$root/bin:$PATH LD_LIBRARY_PATH=$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu "$@"
}

# The test bundle is a program with shared libraries: it goes along with those that the loader finds.
add_test_runner() {
  local bundle library
  bundle=$(swift build --show-bin-path)/physmemPackageTests.xctest
  strip -o "$1/tests" "$bundle"
  mkdir -p "$1/lib" "$1/lib64"
  ldd "$bundle" | awk '$2 == "=>" { print $3 }' | while read -r library; do
    strip -o "$1/lib/${library##*/}" "$library"
  done
  cp -L /lib64/ld-linux-x86-64.so.2 "$1/lib64/"
}

# Everything that the machines have in common, in $cache/initramfs.cpio.
prepare_machine() {
  fetch_packages
  files=$cache/initramfs
  rm -rf "$files"
  mkdir -p "$files"/{dev,proc,sys,tmp,modules}
  local clang modules part
  clang=$(swiftc -print-target-info | sed -n 's/.*"runtimeResourcePath": *"\(.*\)".*/\1/p')/../../bin/clang
  "$clang" -std=c2x -D_GNU_SOURCE -O2 -Wall -Wextra -Werror -static -fuse-ld=lld scripts/backend-init.c \
    -o "$files/init" || fail "scripts/backend-init.c could not be compiled"
  strip -o "$files/physmem" "$physmem"
  modules=$(echo "$root"/lib/modules/*/kernel)
  cp "$modules"/virt/lib/irqbypass.ko "$modules"/arch/x86/kvm/kvm.ko "$modules"/arch/x86/kvm/kvm-amd.ko "$files/modules"
  add_test_runner "$files"
  for part in races rest; do plan $part >"$files/plan.$part"; done
  (cd "$files" && find . | from_cache cpio -o -H newc --quiet) >"$cache/initramfs.cpio"
}

# What every line of a plan came to, and whether all of them were run. The console's end says why when not.
judge_console() {
  local console=$1 plan=$2
  if ! grep -q '^physmem-result: end' "$console"; then
    tail -n 40 "$console"
    say "${console##*/}: the machine did not come to its end: that was the end of its console"
    return 1
  fi
  [ "$(grep -c '^physmem-result: 0 ' "$console")" = "$(wc -l <"$plan")" ] && return 0
  tail -n 40 "$console"
  grep '^physmem-result: [1-9]' "$console" | while read -r _ status _ number; do
    say "${console##*/}: line $number of the plan ended with $status: $(sed -n "${number}p" "$plan")"
  done
  return 1
}

# Has QEMU add to the console where each vCPU of a machine that has hung is, and then the kernel, by an NMI that makes it
# panic, whatever it can say itself.
examine_machine() {
  local monitor=$1 console=$2
  printf 'info registers -a\nnmi\n' >"$monitor.in"
  timeout 5 cat "$monitor.out" >>"$console" || true
}

# Boots the machine with nested paging (npt) or without (shadow), runs a plan in it and shows what it says of tests.
# One that says nothing for longer than any test may take has hung. Run it in the background: the machine ends with that
# process, whatever ends it.
run_machine() {
  local console=$cache/console.$1.$2 nested=1 sign=+ threads=single start=$SECONDS machine output line
  local monitor=$cache/monitor.$1.$2 slowness=1 booted= limit=$machine_time_limit status=0
  local shown=' (passed|failed)  |[0-9]+ passed, |^(paging|kernel) |✘|Test run'
  [ "$1" = npt ] || nested=0 sign=-
  # Slower, and only for what proves nothing without.
  [ "$2" != races ] || threads=multi
  : >"$console"
  rm -f "$monitor".{in,out}
  mkfifo "$monitor".{in,out}
  exec {output}< <(from_cache exec qemu-system-x86_64 \
    -nodefaults -display none -serial stdio -no-reboot -chardev "pipe,id=monitor,path=$monitor" -mon chardev=monitor \
    -accel tcg,thread=$threads -cpu "max,+svm,${sign}npt" -smp 2 -m 3G \
    -L "$root/usr/share/qemu" -L "$root/usr/share/seabios" -L "$root/usr/lib/ipxe/qemu" \
    -kernel "$root"/boot/vmlinuz-* -initrd "$cache/initramfs.cpio" \
    -append "console=ttyS0 quiet tsc=reliable no_timer_check highres=off nohz=off panic=-1 oops=panic softlockup_panic=1 unknown_nmi_panic npt=$nested plan=$2" </dev/null 2>&1)
  machine=$!
  trap 'kill "$machine" 2>/dev/null || true' EXIT
  while [ $((SECONDS - start)) -lt "$limit" ]; do
    IFS= read -r -t $((silence_limit * slowness)) -u "$output" line || { status=$?; break; }
    line=${line//$'\r'/}
    printf '%s\n' "$line" >>"$console"
    [[ ! $line =~ $shown ]] || printf '%-7s%s\n' "$1" "$line"
    if [ -z "$booted" ] && [[ $line == init:* ]]; then
      booted=1
      slowness=$((1 + (SECONDS - start) / quiet_boot))
      limit=$((machine_time_limit * slowness))
      say "$1: $2: booted in $((SECONDS - start)) s"
    fi
  done
  # More than 128: nothing came in time.
  if [ $status -gt 128 ]; then
    say "$1: $2: nothing for $((silence_limit * slowness)) s: where its processors are is in ${console##*/}"
    examine_machine "$monitor" "$console"
    timeout 10 cat <&"$output" >>"$console" || true
  fi
  judge_console "$console" "$files/plan.$2" || exit 1
  say "$1: $2 passed in $((SECONDS - start)) s"
}
