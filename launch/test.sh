#!/usr/bin/env bash
# The linter and all tests, on this machine's CPU.
#   ./launch/test.sh [--dry-run] [options of pytest]
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh

command=(.venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder)
if [ "${1:-}" = "--dry-run" ]; then
  shift
  echo ".venv/bin/ruff check . && .venv/bin/ruff format --check . &&" \
    "$(quoted "${command[@]}" "$@")"
  exit 0
fi
prepare test
.venv/bin/ruff check .
.venv/bin/ruff format --check .
exec "${command[@]}" "$@"
