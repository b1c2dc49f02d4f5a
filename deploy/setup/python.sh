#!/usr/bin/env bash
# python.sh REQUIREMENTS…: a virtual environment in .venv with the pinned packages of these files.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

say "python packages of the contract tests"
venv="$root/.venv"
# One that was made by another interpreter, or not to its end, is made anew.
"$venv/bin/python" -m pip --version >/dev/null 2>&1 || { rm -rf "$venv" && quietly python-venv python3 -m venv "$venv"; }
args=()
for file in "$@"; do args+=(-r "$root/$file"); done
quietly python-packages "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${args[@]}"
touch "$venv/.installed"
