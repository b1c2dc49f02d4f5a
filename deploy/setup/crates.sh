#!/usr/bin/env bash
# The crates that Cargo.lock pins, downloaded before anything is compiled: no network is then one line, not a
# compiler's page.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

say "Rust crates"
quietly crates cargo fetch --locked --manifest-path "$root/Cargo.toml"
