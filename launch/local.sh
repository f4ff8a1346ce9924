#!/usr/bin/env bash
# The whole method on this machine's CPU, in minutes and without a download of weights:
# draws a data set, trains both modules on it, calibrates, evaluates, prints a table.
#   ./launch/local.sh [--dry-run] [options of nps_jax.train, such as --config.seed=1]
# WORKDIR is the folder of the run (default runs/local); a run found there goes on.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh

command=(.venv/bin/python -m nps_jax.train --config=configs/synthetic.py)
if [ "${1:-}" = "--dry-run" ]; then
  shift
  quoted "${command[@]}" "--workdir=${WORKDIR:-runs/local}" "$@"
  exit 0
fi
prepare ""
export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"
exec "${command[@]}" "--workdir=${WORKDIR:-runs/local}" "$@"
