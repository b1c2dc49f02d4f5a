#!/usr/bin/env bash
# Prints the path of a Chromium, or fails: $FOOTFALL_CHROMIUM, else the first one that is installed.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

if [ -n "${FOOTFALL_CHROMIUM:-}" ]; then
  [ -x "$FOOTFALL_CHROMIUM" ] || die "FOOTFALL_CHROMIUM: $FOOTFALL_CHROMIUM is not a program"
  printf '%s\n' "$FOOTFALL_CHROMIUM"
  exit 0
fi
for name in chromium chromium-browser google-chrome-stable google-chrome; do
  if have "$name"; then
    command -v "$name"
    exit 0
  fi
done
die "no Chromium; type: sudo apt-get install -y chromium, or set FOOTFALL_CHROMIUM"
