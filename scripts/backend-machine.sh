# The machine that scripts/test-backends boots: a Debian kernel with kvm_amd under QEMU's translator, and an initramfs
# that holds the command, the test runner, the kernel's modules and scripts/backend-init.c. Sourced, not run.

cache=$PWD/.cache/backends
root=$cache/root
# In seconds: how long a machine may take to boot; and for one that boots in `quiet_boot`, how long it may say nothing
# after that, and how long it may take in all: several times what it needs, since this host may become busy meanwhile.
# One that takes longer to boot has as many times as long, since this host is slow or busy then.
boot_limit=1200
quiet_boot=6
silence_limit=480
machine_time_limit=3600
# The status of a plan in which nothing failed, but the machine itself stopped, which proves nothing: see
# docs/internals/notes/backends.md.
machine_stopped=2

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

# The packages, some with their versions: QEMU with what it needs and the host lacks, and the newest kernel of the kind.
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
  names=$(package_names) ||
    unavailable "Debian's packages qemu-system-x86 and linux-image-cloud-amd64 are not known to apt"
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
    for package in "$cache"/packages/*.deb; do
      dpkg-deb -x "$package" "$root" || fail "$package cannot be unpacked"
    done
    rm -r "$cache/packages"
    touch "$complete"
  fi
  say "$(from_cache qemu-system-x86_64 --version | head -n 1), $(cd "$root/boot" && echo vmlinuz-*)"
}

# Runs a program of the cache, else of the host's, with the cache's libraries.
from_cache() {
  PATH=$root/usr/bin:$root/bin:$PATH LD_LIBRARY_PATH=$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu "$@"
}

# The first number of QEMU's version.
qemu_release() { from_cache qemu-system-x86_64 --version | sed -nE '1s/.* version ([0-9]+)\..*/\1/p'; }

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

# Lines of a log as they can be shown anywhere.
plain() { LC_ALL=C sed -E 's/\x1b\[[0-9;]*[A-Za-z]//g' | LC_ALL=C tr -d '\000-\010\013-\037' | cut -c 1-160; }

# The cases of a log that failed, with their reports.
failed_cases() {
  LC_ALL=C awk '/^[A-Za-z_0-9]+\/[A-Za-z_0-9]+ +failed  / { shown = 1; print; next } shown && /^  / { print; next }
    { shown = 0 } /✘|↳/ && !/Testing Library Version|Target Platform/' "$1" | plain | head -n 40 || true
}

# The end of a log, without the tests that passed and the registers.
log_end() {
  LC_ALL=C grep -avE '^[A-Za-z_0-9]+/[A-Za-z_0-9]+ +passed  |✔|◇|^$|^CPU#|^[A-Z0-9]+ *=' "$1" |
    plain | tail -n 40 || true
}

# Adds to a reason why a log shows a failure: the cases that failed, or else its end; then what the caller says of it.
explain() {
  local log=$1 reason=$2 text
  text=$(failed_cases "$log")
  # Of the registers of a machine that was examined, where its processors were.
  [ -n "$text" ] || text=$(LC_ALL=C grep -aE '^(CPU#|RIP=)' "$log"; log_end "$log")
  printf '%s\n' "$text" "${@:3}" >>"$reason"
}

# Follows the output of QEMU, adds it to a console and shows what it says of tests. Sets ending: `ended`; `late`;
# `silent`, if the machine said nothing for longer than any may; `waiting`, if it was alive, but no test came to its
# end.
follow_console() {
  local machine=$1 part=$2 console=$3 line status slowness booted= start=$SECONDS heard=$SECONDS
  local limit=$machine_time_limit patience=$boot_limit
  local shown=' (passed|failed)  |[0-9]+ passed, |^(paging|kernel) |✘|Test run'
  ending=late
  while [ $((SECONDS - start)) -lt "$limit" ]; do
    status=0
    IFS= read -r -t "$patience" -u "$output" line || status=$?
    # More than 128: nothing came in time.
    [ $status -le 128 ] || { ending=silent; return; }
    [ $status = 0 ] || { ending=ended; return; }
    if [[ $line == physmem-waiting:* ]]; then
      [ $((SECONDS - heard)) -lt "$patience" ] || { ending=waiting; return; }
      continue
    fi
    heard=$SECONDS
    line=${line//$'\r'/}
    printf '%s\n' "$line" >>"$console"
    [[ ! $line =~ $shown ]] || printf '%-7s%s\n' "$machine" "$line"
    if [ -z "$booted" ] && [[ $line == init:* ]]; then
      booted=1
      slowness=$((1 + (SECONDS - start) / quiet_boot))
      patience=$((silence_limit * slowness))
      limit=$((machine_time_limit * slowness))
      say "$machine: $part: booted in $((SECONDS - start)) s"
    fi
  done
}

# Has QEMU add to the console where each vCPU of a machine that has hung is, and then the kernel, by an NMI that makes
# it panic, whatever it can say itself.
examine_machine() {
  local monitor=$1 console=$2
  printf 'info registers -a\nnmi\n' >"$monitor.in"
  timeout 5 cat "$monitor.out" >>"$console" || true
  timeout 10 cat <&"$output" >>"$console" || true
}

# What came of a plan, by its console, how that ended, and the panic that the machine's kernel came to by itself. Sets
# verdict. Returns 0 for passed, 1 for failed, and machine_stopped.
judge_console() {
  local console=$1 plan=$2 ending=$3 panic=$4
  if grep -aq '^physmem-result: end' "$console" &&
    [ "$(grep -ac '^physmem-result: 0 ' "$console")" = "$(wc -l <"$plan")" ]; then
    verdict=passed
    return 0
  fi
  verdict=$(grep -a '^physmem-result: [1-9]' "$console" | while read -r _ status _ number; do
    echo "line $number of the plan ended with $status: $(sed -n "${number}p" "$plan")"
  done) || true
  [ -n "$verdict" ] || [ -z "$(failed_cases "$console")" ] ||
    verdict="a test failed, and the plan did not come to its end"
  if [ -n "$verdict" ]; then
    [ -z "$panic" ] || verdict+="; after that the machine's kernel stopped: $panic"
    return 1
  fi
  case ${panic:-$ending} in
    # A process can bring these about.
    *'Out of memory'* | *'deadlocked on memory'* | *'Attempted to kill init'*)
      verdict="the machine's kernel stopped: $panic"
      return 1
      ;;
    Kernel*) verdict="the machine's kernel stopped: $panic" ;;
    silent) verdict="the machine said nothing any more: where its processors were is above" ;;
    ended)
      verdict="QEMU ended with the status $qemu_status, and the machine's kernel did not say why"
      ! grep -aq '^init: cannot go on' "$console" || return 1
      ;;
    waiting)
      verdict="no test came to its end any more, but the machine was alive: where its processors were is above"
      return 1
      ;;
    *)
      verdict="the plan took longer than it may"
      return 1
      ;;
  esac
  return $machine_stopped
}

# Boots the machine with nested paging (npt) or without (shadow), and runs a plan in it. Returns as judge_console does.
try_machine() {
  local machine=$1 part=$2 console=$3 nested=1 sign=+ threads=single panic
  local monitor=$cache/monitor.$1.$2
  [ "$machine" = npt ] || nested=0 sign=-
  # Slower, and only for what proves nothing without.
  [ "$part" != races ] || threads=multi
  : >"$console"
  rm -f "$monitor".{in,out}
  mkfifo "$monitor".{in,out}
  exec {output}< <(from_cache exec qemu-system-x86_64 \
    -nodefaults -display none -serial stdio -no-reboot -chardev "pipe,id=monitor,path=$monitor" -mon chardev=monitor \
    -accel tcg,thread=$threads -cpu "max,+svm,${sign}npt" -smp 2 -m 3G \
    -L "$root/usr/share/qemu" -L "$root/usr/share/seabios" -L "$root/usr/lib/ipxe/qemu" \
    -kernel "$root"/boot/vmlinuz-* -initrd "$cache/initramfs.cpio" \
    -append "console=ttyS0 quiet tsc=reliable no_timer_check highres=off nohz=off panic=-1 oops=panic softlockup_panic=1 unknown_nmi_panic npt=$nested plan=$part" </dev/null 2>&1)
  qemu=$!
  follow_console "$machine" "$part" "$console"
  panic=$(grep -aom 1 'Kernel panic - not syncing.*' "$console") || true
  if [ $ending != ended ]; then
    examine_machine "$monitor" "$console"
    # One that hangs itself does not look at other signals.
    kill -KILL "$qemu" 2>/dev/null || true
  fi
  qemu_status=0
  wait "$qemu" || qemu_status=$?
  qemu=
  exec {output}<&-
  judge_console "$console" "$files/plan.$part" $ending "$panic"
}

# Runs a plan in the machine, and once more if the machine itself stopped. What there is to say of that, or of a
# failure, is in $cache/reason.MACHINE.PLAN. Run it in the background: the machine ends with that process, whatever ends
# it.
run_machine() {
  local console=$cache/console.$1.$2 reason=$cache/reason.$1.$2 start=$SECONDS status=0
  qemu=
  trap 'kill "$qemu" 2>/dev/null || true' EXIT
  try_machine "$1" "$2" "$console" || status=$?
  if [ $status = $machine_stopped ]; then
    mv "$console" "$console.first"
    verdict+="; the plan is run once more"
    explain "$console.first" "$reason" "$verdict"
    say "$1: $2: $verdict"
    status=0
    try_machine "$1" "$2" "$console" || status=$?
    [ $status != 0 ] || echo "the second time it passed" >>"$reason"
  fi
  if [ $status != 0 ]; then
    explain "$console" "$reason" "$verdict"
    say "$1: $2: $verdict"
    exit 1
  fi
  say "$1: $2 passed in $((SECONDS - start)) s"
}
