#!/usr/bin/env bash
# bench-aggregator.sh BINARY: what the aggregator costs, beside the least that ClickHouse can spend and beside
# ClickHouse's own Kafka engine; how old an event is when it is seen; how long a restart takes. Written to
# aggregator/benches/RESULTS.md. EVENTS, LATENCY_RATE, LATENCY_SECONDS, RESTART_RATE and RESTART_MINUTES change the size.
# ARGS are further options, such as --only latency.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

binary="$(realpath "$1")"

cd "$root"
say "building the bench"
mapfile -t built < <(cargo bench --locked -p footfall-aggregator --bench pipeline --no-run --message-format json |
  node -e "
    for (const line of require('fs').readFileSync(0, 'utf8').split('\n').filter(Boolean)) {
      const { executable, target } = JSON.parse(line)
      if (executable && target.name === 'pipeline') console.log(executable)
    }")
# shellcheck disable=SC2086 # several options
"${built[0]}" run --binary "$binary" --scratch "$root/target/bench" \
  --results "$root/aggregator/benches/RESULTS.md" ${ARGS:-}
