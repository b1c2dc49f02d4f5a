#!/usr/bin/env bash
# All tests, stage by stage; the first stage that fails ends the run. At the end: what each stage took, and how
# many tests passed and failed, added up from what the runners themselves report.
set -euo pipefail
source "$(dirname "$0")/stages.sh"

export NO_COLOR=1 CARGO_TERM_COLOR=never
export FOOTFALL_BIN="$root/target/debug/footfall"

stage compile cargo test --workspace --locked --no-run
tests rust cargo test --workspace --locked
tests tracker npm test --silent --prefix "$root/ingest/tracker"
tests dashboard npm test --silent --prefix "$root/dashboard/web"
tests broker-contract "$root/.venv/bin/python" -m pytest -q "$root/deploy/tests/broker_contract"
tests telemetry "$root/.venv/bin/python" -m pytest -q "$root/deploy/tests/telemetry"
tests conformance "$root/.venv/bin/python" -m pytest -q "$root/deploy/tests/conformance"
tests protocol "$root/.venv/bin/python" -m pytest -q "$root/deploy/tests/protocol"

if CHROMIUM="$("$root/deploy/setup/browser.sh")"; then
  export CHROMIUM
  tests tracker-browser npm run test:browser --silent --prefix "$root/ingest/tracker"
  tests dashboard-browser npm run test:browser --silent --prefix "$root/dashboard/web"
  stage accessibility npm run axe --silent --prefix "$root/dashboard/web"
  tests end-to-end npm test --silent --prefix "$root/deploy/tests/e2e"
elif [ "${CI:-}" = true ]; then
  die 'a CI without a browser would pass untested'
else
  skipped tracker-browser 'no Chromium'
  skipped dashboard-browser 'no Chromium'
  skipped accessibility 'no Chromium'
  skipped end-to-end 'no Chromium'
fi

finish
