#!/usr/bin/env bash
# What talks to Kafka, against Apache Kafka instead of the embedded broker: the contract suite from both its sides,
# and the load with its audit. Tests find the broker in FOOTFALL_TEST_KAFKA.
set -euo pipefail
source "$(dirname "$0")/stages.sh"

export NO_COLOR=1 CARGO_TERM_COLOR=never
export FOOTFALL_BIN="$root/target/debug/footfall"

if [ -z "${FOOTFALL_TEST_KAFKA:-}" ]; then
  # Compiled first: on a small machine the compiler and Kafka would fight for memory.
  stage compile cargo test -p footfall --locked --no-run --test broker_contract --test pipeline --test refusals
  exec "$root/deploy/kafka/run.sh" run "$root/deploy/setup/test-kafka.sh"
fi

say "Apache Kafka is at $FOOTFALL_TEST_KAFKA"
tests rust-contract cargo test -p footfall --locked --test broker_contract
# One after the other: each empties the broker first.
tests pipeline cargo test -p footfall --locked --test pipeline --test refusals -- --test-threads=1
tests broker-contract "$root/.venv/bin/python" -m pytest -q "$root/deploy/tests/broker_contract"
finish
