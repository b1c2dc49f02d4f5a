#!/usr/bin/env bash
# What talks to Kafka, against Apache Kafka instead of the embedded broker: the contract suite from both its sides and
# the load with its audit on one broker, then the aggregator's faults on three, of which one is killed. Tests find the
# brokers in FOOTFALL_TEST_KAFKA.
set -euo pipefail
source "$(dirname "$0")/stages.sh"

export NO_COLOR=1 CARGO_TERM_COLOR=never
export FOOTFALL_BIN="$root/target/debug/footfall"
self="$root/deploy/setup/test-kafka.sh"
kafka="$root/deploy/kafka/run.sh"

if [ -z "${FOOTFALL_TEST_KAFKA:-}" ]; then
  # Compiled first: on a small machine the compiler and Kafka would fight for memory.
  stage compile cargo test -p footfall --locked --no-run --test broker_contract --test pipeline --test refusals \
    --test aggregator_faults
  "$kafka" run "$self"
  exec "$kafka" run -n 3 "$self"
fi

say "Apache Kafka is at $FOOTFALL_TEST_KAFKA"
# One after the other: each empties the brokers first.
case "$FOOTFALL_TEST_KAFKA" in
  *,*)
    tests aggregator-faults cargo test -p footfall --locked --test aggregator_faults -- --test-threads=1 --nocapture
    ;;
  *)
    tests rust-contract cargo test -p footfall --locked --test broker_contract
    tests pipeline cargo test -p footfall --locked --test pipeline --test refusals -- --test-threads=1
    tests broker-contract "$root/.venv/bin/python" -m pytest -q "$root/deploy/tests/broker_contract"
    ;;
esac
finish
