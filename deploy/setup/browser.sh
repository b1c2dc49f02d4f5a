#!/usr/bin/env bash
# Prints the path of a Chromium, or fails: $CHROMIUM, else the first one that is installed.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

if [ -n "${CHROMIUM:-}" ]; then
  [ -x "$CHROMIUM" ] || die "CHROMIUM: $CHROMIUM is not a program"
  printf '%s\n' "$CHROMIUM"
  exit 0
fi
for name in chromium chromium-browser google-chrome-stable google-chrome; do
  if have "$name"; then
    command -v "$name"
    exit 0
  fi
done
die "no Chromium; type: sudo apt-get install -y chromium, or set CHROMIUM"
