#!/usr/bin/env bash
# Everything that reads the code without running it.
set -euo pipefail
source "$(dirname "$0")/stages.sh"

deny_version=0.20.2

# A lock file that names a registry's host would send everybody there, whatever they configured.
lock_files() {
  local found=0 file
  while IFS= read -r file; do
    if grep -nq '"resolved"' "$file"; then
      echo "error: $file has \"resolved\" lines; write it with: npm install --package-lock-only --omit-lockfile-registry-resolved"
      found=1
    fi
  done < <(git -C "$root" ls-files --cached --others --exclude-standard '*package-lock.json' | sed "s|^|$root/|")
  return "$found"
}

deny() {
  local bin="$cache/tools/bin/cargo-deny"
  if have cargo-deny; then bin="$(command -v cargo-deny)"; fi
  if [ ! -x "$bin" ]; then
    say "building cargo-deny $deny_version, once for this user"
    cargo install --locked --quiet cargo-deny --version "$deny_version" --root "$cache/tools"
  fi
  # Advisories are left out: their database is a git repository that not every network reaches.
  (cd "$root" && "$bin" --locked check --hide-inclusion-graph licenses bans sources)
}

cd "$root"
stage rustfmt cargo fmt --all --check
stage lock-files lock_files
if have shellcheck; then
  mapfile -t scripts < <(git ls-files --cached --others --exclude-standard '*.sh')
  stage shellcheck shellcheck --severity=warning -x -P deploy/setup .ci/run "${scripts[@]}"
else
  skipped shellcheck 'not installed; Debian: apt-get install -y shellcheck'
fi
stage eslint-tracker npm run --silent --prefix ingest/tracker lint
stage eslint-dashboard npm run --silent --prefix dashboard/web lint
stage clippy cargo clippy --workspace --all-targets --locked -- -D warnings
# Nobody who builds the workspace builds these.
stage clippy-fuzz cargo clippy --manifest-path ingest/fuzz/Cargo.toml --target-dir target/fuzz --locked -- -D warnings
stage deny deny

printf '\n'
printf '  %s\n' "${stage_lines[@]}"
