#!/usr/bin/env bash
# bench-ingest.sh BINARY [hold]: what a node costs, written to ingest/benches/RESULTS.md; with `hold`, what 100,000
# connections cost over ten minutes. Broker, nodes and clients are processes of their own. ARGS are further options.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

binary="$(realpath "$1")"
bench="${2:-ingest}"

files="$(ulimit -Hn)"
[ "$files" = unlimited ] || [ "$files" -ge 20000 ] || die "a process may open $files files here; the bench needs 20000"
ulimit -Sn "$files"

cd "$root"
say "building the client"
mapfile -t built < <(cargo bench --locked -p footfall-ingest --bench edge --no-run --message-format json |
  node -e "
    for (const line of require('fs').readFileSync(0, 'utf8').split('\n').filter(Boolean)) {
      const { executable, target } = JSON.parse(line)
      if (executable && target.name === 'edge') console.log(executable)
    }")
# shellcheck disable=SC2086 # several options
"${built[0]}" "$bench" --binary "$binary" --scratch "$root/target/bench" --results "$root/ingest/benches/RESULTS.md" ${ARGS:-}
rm -rf "$root/target/bench"
