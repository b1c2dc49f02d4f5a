# What the other scripts here share. Sourced, not run.
# shellcheck shell=bash

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
cache="${XDG_CACHE_HOME:-${HOME:?HOME is not set: the cache has no place}/.cache}/footfall"
logs="$root/target/setup"
export root cache logs

say() { printf '==> %s\n' "$*"; }

# One line that says what is wrong and what to do.
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# at_least HAVE WANT: dotted numbers.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n1)" = "$2" ]; }

# need_space DIR MIB WHAT: free space where DIR is, or will be.
need_space() {
  local dir="$1" free
  while [ ! -d "$dir" ]; do dir="$(dirname "$dir")"; done
  free="$(df -Pm "$dir" | awk 'NR == 2 { print $4 }')"
  [ "$free" -ge "$2" ] || die "no disk: $3 needs $2 MiB, $dir has $free MiB free"
}

# quietly NAME COMMAND…: the output goes to a log; a failure is one line with the cause, or, where that is not known, the log's end.
quietly() {
  local name="$1" log
  shift
  mkdir -p "$logs"
  log="$logs/$name.log"
  if "$@" >"$log" 2>&1; then return 0; fi
  if grep -qiE 'ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT|ENETUNREACH|could ?n.t resolve|name resolution|failed to resolve|network is unreachable|connection refused|Max retries exceeded|No matching distribution' "$log"; then
    die "$name: no network, or its registry does not answer (whole log: $log)"
  elif grep -qiE 'ENOSPC|no space left' "$log"; then
    die "$name: the disk is full (whole log: $log)"
  elif grep -qiE 'EINTEGRITY' "$log"; then
    die "$name: what was downloaded is not what the lock file pins (whole log: $log)"
  fi
  tail -n 15 "$log" >&2
  die "$name failed (whole log: $log)"
}
