#!/usr/bin/env bash
# Sizes of the tracker's files beside those of other trackers, written to ingest/tracker/bench/SIZES.md.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

say "sizes of trackers"
node "$root/ingest/tracker/bench/sizes.mjs"
