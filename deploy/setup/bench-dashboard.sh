#!/usr/bin/env bash
# bench-dashboard.sh BINARY: what a viewer of the live page costs, beside Centrifugo and beside a loop that only writes.
# Written to dashboard/benches/RESULTS.md. SUBSCRIBERS, RATE and SECONDS change the size; ARGS are further options. Server
# and client are processes of their own: each may open 20,000 files or fewer.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

binary="$(realpath "$1")"
centrifugo_version=v6.9.1

files="$(ulimit -Hn)"
[ "$files" = unlimited ] || [ "$files" -ge 12000 ] || die "a process may open $files files here; the bench needs 12000"
ulimit -Sn "$files"

cd "$root"
# Not in target/bench, which the benches empty.
tools="$root/target/bench-tools/centrifugo-$centrifugo_version"
centrifugo=()
if [ ! -x "$tools/centrifugo" ] && have go; then
  say "building Centrifugo $centrifugo_version, once"
  # The checksum database holds what the proxy sends against what everybody gets.
  GOBIN="$tools" quietly centrifugo nice go install "github.com/centrifugal/centrifugo/v6@$centrifugo_version"
fi
if [ -x "$tools/centrifugo" ]; then
  centrifugo=(--centrifugo "$tools/centrifugo")
else
  say "Centrifugo is left out: Go, which builds it, is not installed (https://go.dev)"
fi

say "building the client"
mapfile -t built < <(cargo bench --locked -p footfall-dashboard --bench fanout --no-run --message-format json |
  node -e "
    for (const line of require('fs').readFileSync(0, 'utf8').split('\n').filter(Boolean)) {
      const { executable, target } = JSON.parse(line)
      if (executable && target.name === 'fanout') console.log(executable)
    }")
# shellcheck disable=SC2086 # several options
"${built[0]}" run --binary "$binary" "${centrifugo[@]}" --scratch "$root/target/bench" \
  --results "$root/dashboard/benches/RESULTS.md" ${ARGS:-}
