#!/usr/bin/env bash
# Each fuzz target for FUZZ_SECONDS (30), from its seeds and from what earlier runs found. FUZZ_TARGETS names fewer.
# What crashes a target stays in target/fuzz/crashes; cargo-fuzz prints how to run it again.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

fuzz_version=0.13.2
seconds="${FUZZ_SECONDS:-30}"
dir="$root/ingest/fuzz"

bin="$cache/tools/bin"
if have cargo-fuzz; then bin="$(dirname "$(command -v cargo-fuzz)")"; fi
if [ ! -x "$bin/cargo-fuzz" ]; then
  say "building cargo-fuzz $fuzz_version, once for this user"
  cargo install --locked --quiet cargo-fuzz --version "$fuzz_version" --root "$cache/tools"
fi
PATH="$bin:$PATH"

# No address sanitizer: there is no unsafe code to look after, and without it the stable compiler does.
options=(--fuzz-dir "$dir" --target-dir "$root/target/fuzz" --sanitizer none)
say "building the fuzz targets"
(cd "$root" && quietly fuzz-build cargo fuzz build "${options[@]}")
mapfile -t targets < <(cd "$root" && cargo fuzz list --fuzz-dir "$dir")
[ -z "${FUZZ_TARGETS:-}" ] || read -ra targets <<<"$FUZZ_TARGETS"

crashes="$root/target/fuzz/crashes"
mkdir -p "$crashes"
for target in "${targets[@]}"; do
  corpus="$root/target/fuzz/corpus/$target"
  mkdir -p "$corpus"
  say "fuzzing $target for $seconds s"
  log="$logs/fuzz-$target.log"
  mkdir -p "$logs"
  # The largest frame that a node reads is 64 KiB; what is rare happens in less.
  (cd "$root" && cargo fuzz run "${options[@]}" "$target" "$corpus" "$dir/seeds/$target" -- \
    -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=16384 -dict="$dir/json.dict" \
    -artifact_prefix="$crashes/$target-" -print_final_stats=1) >"$log" 2>&1 || {
    tail -n 40 "$log" >&2
    die "$target failed (whole log: $log)"
  }
  awk '/stat::number_of_executed_units/ { runs = $2 } / cov: / { cov = $4 } END { printf "    %d runs, %d places covered\n", runs, cov }' "$log"
done
