#!/usr/bin/env bash
# Tools of the machine: compiler, Rust, Node; with `--tests` Python, a browser and proxies; with `--kafka` Java and
# Maven. As root, missing Debian packages are installed; otherwise the one line that installs them is printed.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

tests=false
kafka=false
for option in "$@"; do
  case "$option" in
    --tests) tests=true ;;
    --kafka) kafka=true ;;
    *) die "usage: system.sh [--tests] [--kafka]" ;;
  esac
done

missing=()
want() { have "$1" || missing+=("$2"); }

want cc build-essential
want make build-essential
want pkg-config pkg-config
[ -e /usr/include/zlib.h ] || missing+=(zlib1g-dev)
want curl curl
want flock util-linux
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
if $tests; then
  want python3 python3
  python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
  # The collector of the telemetry tests is linked against it.
  if [ "$(command -v python3)" = /usr/bin/python3 ]; then
    python3 -c 'import ctypes, sys; ctypes.CDLL("libpython%d.%d.so.1.0" % sys.version_info[:2])' 2>/dev/null ||
      missing+=(libpython3-dev)
  fi
  # Debian keeps servers where not every user's PATH leads.
  PATH="$PATH:/usr/sbin"
  want nginx nginx
  want haproxy haproxy
  browser="$("$root/deploy/setup/browser.sh" 2>/dev/null || true)"
  [ -n "$browser" ] || missing+=(chromium)
fi
if $kafka; then
  want java openjdk-17-jre-headless
  want mvn maven
fi

if [ "${#missing[@]}" -gt 0 ]; then
  mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
  if ! have apt-get; then
    die "missing: ${missing[*]} (Debian's names; install what your system calls them)"
  elif [ "$(id -u)" -eq 0 ]; then
    say "installing ${missing[*]}"
    # The tests start the servers they need; their packages must not.
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
    quietly apt-update apt-get update
    quietly apt-install apt-get install -y --no-install-recommends "${missing[@]}"
  elif [ "${missing[*]}" = chromium ] && [ "${CI:-}" != true ]; then
    say "no Chromium: the browser tests will be skipped; for them: sudo apt-get install -y chromium"
  else
    die "missing packages; type: sudo apt-get install -y ${missing[*]}"
  fi
fi

rust_wanted="$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$root/Cargo.toml")"
have cargo || die "missing: Rust $rust_wanted or newer; install it with rustup (https://rustup.rs)"
rust="$(cd "$root" && rustc --version | awk '{ print $2 }')"
at_least "${rust%%-*}" "$rust_wanted" || die "Rust $rust is too old, $rust_wanted is needed; type: rustup update stable"

node_wanted=20.19
have node || die "missing: Node $node_wanted or newer, with npm (https://nodejs.org)"
node="$(node --version)"
at_least "${node#v}" "$node_wanted" || die "Node ${node#v} is too old, $node_wanted is needed (https://nodejs.org)"
have npm || die "missing: npm, which comes with Node (Debian: apt-get install -y npm)"

[ "$(uname -sm)" = 'Linux x86_64' ] || [ -n "${FOOTFALL_ENGINE_LIB:-}" ] ||
  die "the embedded engine is pinned for Linux x86_64, this is $(uname -sm); set FOOTFALL_ENGINE_LIB to a libchdb.so for it"
[ -d "$root/target/release" ] || [ -d "$root/target/debug" ] || need_space "$root" 4096 'a build from nothing'
