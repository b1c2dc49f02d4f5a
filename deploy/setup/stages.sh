# Stages of a run: timed, logged, the first failure ends it. Sourced, not run.
# shellcheck shell=bash
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

stage_lines=()
passed=0
failed=0
stage_logs="$root/target/test-logs"
mkdir -p "$stage_logs"

# stage NAME COMMAND…
stage() {
  local name="$1" began=$SECONDS
  shift
  say "$name"
  if "$@" 2>&1 | tee "$stage_logs/$name.log"; then
    stage_lines+=("$(printf '%-18s %4d s' "$name" $((SECONDS - began)))")
    return 0
  fi
  stage_lines+=("$(printf '%-18s %4d s  FAILED' "$name" $((SECONDS - began)))")
  add_up "$stage_logs/$name.log" || true
  summary
  die "$name failed (whole log: $stage_logs/$name.log)"
}

# A stage of tests: one that reports none has not tested anything, and fails.
tests() {
  stage "$@"
  add_up "$stage_logs/$1.log" || die "$1: the runner reported no tests (whole log: $stage_logs/$1.log)"
}

skipped() {
  stage_lines+=("$(printf '%-18s skipped: %s' "$1" "$2")")
}

# Reads the closing lines of cargo, vitest, node's runner and pytest.
add_up() {
  local counts
  counts="$(sed 's/\x1b\[[0-9;]*m//g' "$1" | awk '
    function number_before(word,   part) {
      return match($0, "[0-9]+ " word) ? substr($0, RSTART, RLENGTH) + 0 : 0
    }
    /^test result: /                              { pass += number_before("passed"); fail += number_before("failed"); next }
    /^ *Tests  .*(passed|failed)/                 { pass += number_before("passed"); fail += number_before("failed"); next }
    /^(=+ )?([0-9]+ [a-z]+, )*[0-9]+ (passed|failed|errors?).* in [0-9.]+s/ {
      pass += number_before("passed"); fail += number_before("failed") + number_before("error"); next }
    /^(#|ℹ) pass [0-9]+$/                         { pass += $3; next }
    /^(#|ℹ) fail [0-9]+$/                         { fail += $3; next }
    END { print pass + 0, fail + 0 }')"
  passed=$((passed + ${counts% *}))
  failed=$((failed + ${counts#* }))
  [ "$counts" != '0 0' ]
}

summary() {
  printf '\n'
  printf '  %s\n' "${stage_lines[@]}"
  printf '\n%d passed, %d failed\n' "$passed" "$failed"
}

finish() {
  summary
  [ "$failed" -eq 0 ]
}
