#!/usr/bin/env bash
# bench.sh BINARY: how many events a second one machine takes from WebSocket to table, and whether all arrived. The
# load client runs on the same machine and costs its share. EVENTS and CONNECTIONS change the size.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

binary="$1"
events="${EVENTS:-200000}"
connections="${CONNECTIONS:-500}"

scratch="$(mktemp -d)"
server=
# shellcheck disable=SC2317 # called by the trap
stop() {
  if [ -n "$server" ]; then
    kill -TERM "$server" 2>/dev/null || true
    wait "$server" || true
  fi
  rm -rf "$scratch"
}
trap stop EXIT

any=127.0.0.1:0
"$binary" standalone --data-dir "$scratch/data" --ready-file "$scratch/ready.json" \
  --ingest "$any" --dashboard "$any" --clickhouse "$any" --kafka "$any" >"$scratch/server.log" 2>&1 &
server=$!
while [ ! -s "$scratch/ready.json" ]; do
  kill -0 "$server" 2>/dev/null || { tail -n 15 "$scratch/server.log" >&2; die 'the server did not start'; }
  sleep 0.1
done
ready() { node -p "JSON.parse(require('fs').readFileSync('$scratch/ready.json')).$1"; }

say "load: $events events over $connections connections"
"$binary" load --ingest "$(ready ingest)" --site "$(ready site)" --events "$events" --connections "$connections" \
  --seed 1 --ledger "$scratch/ledger" --json
say 'audit'
FOOTFALL_CLICKHOUSE_PASSWORD="$(ready clickhouse.password)" "$binary" audit --ledger "$scratch/ledger" \
  --clickhouse "$(ready clickhouse.url)" --user "$(ready clickhouse.user)" --wait 120s --json
