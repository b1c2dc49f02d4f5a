#!/usr/bin/env bash
# npm.sh DIR: the packages that DIR/package-lock.json pins.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

dir="$1"
[ -f "$root/$dir/package-lock.json" ] || die "$dir has no package-lock.json"
say "npm packages of $dir"
quietly "npm-${dir//\//-}" npm ci --prefix "$root/$dir" --no-audit --no-fund --loglevel=error \
  --fetch-retry-mintimeout=1000 --fetch-retry-maxtimeout=5000
# Newer than the lock file, for make.
touch "$root/$dir/node_modules/.package-lock.json"
