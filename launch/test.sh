#!/usr/bin/env bash
# The linter and the tests, on this machine's CPU.
#   ./launch/test.sh [--dry-run] [--slow] [options of pytest]
# --slow: also the tests that are marked slow.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh

dry=false
if [ "${1:-}" = "--dry-run" ]; then
  dry=true
  shift
fi
command=(.venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder)
if [ "${1:-}" = "--slow" ]; then
  shift
else
  command+=(-m "not slow")
fi
if $dry; then
  echo ".venv/bin/ruff check . && .venv/bin/ruff format --check . &&" \
    "$(quoted "${command[@]}" "$@")"
  exit 0
fi
prepare test
.venv/bin/ruff check .
.venv/bin/ruff format --check .
exec "${command[@]}" "$@"
