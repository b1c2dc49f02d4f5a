#!/usr/bin/env bash
# The embedded engine's library, from the version and the integrity hash that deploy/engine/package-lock.json pins,
# into the user's cache. npm verifies the hash; the library appears there whole or not at all.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

if [ -n "${FOOTFALL_ENGINE_LIB:-}" ]; then
  [ -f "$FOOTFALL_ENGINE_LIB" ] || die "FOOTFALL_ENGINE_LIB: there is no file $FOOTFALL_ENGINE_LIB"
  exit 0
fi

package=@chdb/lib-linux-x64-gnu
lock="$root/deploy/engine/package-lock.json"
read -r version integrity < <(node -p "
  const p = require('$lock').packages['node_modules/$package'];
  p.version + ' ' + p.integrity")
home="$cache/chdb-$version"

# What the marker says must be what the lock file says, about a library of the size that was verified.
complete() {
  [ -f "$home/libchdb.so" ] && [ -f "$home/.complete" ] &&
    [ "$(cat "$home/.complete")" = "$integrity $(stat -c %s "$home/libchdb.so")" ]
}

complete && exit 0
mkdir -p "$cache"
exec 9>"$cache/.lock"
flock 9
complete && exit 0

need_space "$cache" 1200 'the embedded engine'
say "downloading the embedded ClickHouse engine, 178 MB, once for this user"
find "$cache" -maxdepth 1 -name '.chdb-*' -exec rm -rf {} +
tmp="$(mktemp -d "$cache/.chdb-XXXXXX")"
trap 'rm -rf "$tmp"' EXIT
cp "$root/deploy/engine/package.json" "$lock" "$tmp/"
quietly engine npm ci --prefix "$tmp" --ignore-scripts --no-audit --no-fund --loglevel=error \
  --fetch-retry-mintimeout=1000 --fetch-retry-maxtimeout=5000

mkdir "$tmp/whole"
mv "$tmp/node_modules/$package/libchdb.so" "$tmp/whole/libchdb.so"
printf '%s %s\n' "$integrity" "$(stat -c %s "$tmp/whole/libchdb.so")" >"$tmp/whole/.complete"
chmod 755 "$tmp/whole"
rm -rf "$home"
mv -T "$tmp/whole" "$home"
say "engine is at $home/libchdb.so"
