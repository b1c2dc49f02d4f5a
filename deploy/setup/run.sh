#!/usr/bin/env bash
# run.sh BINARY [OPTIONS]: `standalone` in the foreground. With DEMO=1 synthetic visitors come as soon as it is
# ready, and go with it. The binary itself says where everything is and how to stop it.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

binary="$1"
shift
[ "${DEMO:-}" = 1 ] || exec "$binary" standalone "$@"

for arg in "$@"; do
  [ "${arg%%=*}" != --ready-file ] || die "DEMO=1 needs the ready file for itself: leave --ready-file out of ARGS"
done
scratch="$(mktemp -d)"
ready="$scratch/ready.json"

# Own process groups: Ctrl-C reaches this script alone, which passes it on once. Twice would cut the drain short.
set -m
"$binary" standalone --ready-file "$ready" "$@" &
server=$!
visitors=

# shellcheck disable=SC2317 # called by the traps
stop_visitors() {
  [ -z "$visitors" ] || kill -TERM "$visitors" 2>/dev/null || true
}
# shellcheck disable=SC2317 # called by the traps
pass_on() {
  stop_visitors
  kill -TERM "$server" 2>/dev/null || true
}
trap pass_on INT TERM HUP
trap 'stop_visitors; rm -rf "$scratch"' EXIT

while [ ! -s "$ready" ] && kill -0 "$server" 2>/dev/null; do sleep 0.1; done
if [ -s "$ready" ]; then
  from_ready() { node -p "JSON.parse(require('fs').readFileSync('$ready'))['$1']"; }
  "$binary" load --ingest "$(from_ready ingest)" --site "$(from_ready site)" --connections "${DEMO_VISITORS:-40}" \
    --rate "${DEMO_RATE:-15}" --events-per-frame 1 --visit 45s --duration 8h --ledger "$scratch/visitors.ledger" \
    >"$scratch/visitors.log" 2>&1 &
  visitors=$!
  sleep 1
  if kill -0 "$visitors" 2>/dev/null; then
    say "synthetic visitors are on the demo site"
  else
    say "the synthetic visitors did not come:"
    tail -n 5 "$scratch/visitors.log" >&2
    visitors=
  fi
fi

# A signal interrupts `wait`; the server's own end is what counts.
status=0
wait "$server" || status=$?
while kill -0 "$server" 2>/dev/null; do
  status=0
  wait "$server" || status=$?
done
exit "$status"
