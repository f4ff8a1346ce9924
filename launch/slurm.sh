#!/usr/bin/env bash
# One run for each category and seed, as an array of jobs on GPU nodes under SLURM.
#   CATEGORIES=pushpins,juice_bottle SEEDS=0,1 DATA=/data/loco \
#     ./launch/slurm.sh [--dry-run] [options of nps_jax.train]
# Start it on a login node, without sbatch: it installs the package into .venv, then
# submits itself. launch/README.md lists the settings.
set -euo pipefail

# Sets `command` to what trains the run at a place in the array.
# Usage: choose PLACE CATEGORIES SEEDS RUNS COMMAND...
choose() {
  local place="$1" runs="$4" categories seeds category seed
  IFS=, read -ra categories <<<"$2"
  IFS=, read -ra seeds <<<"$3"
  shift 4
  category="${categories[place / ${#seeds[@]}]}"
  seed="${seeds[place % ${#seeds[@]}]}"
  command=("$@" "--workdir=$runs/$category/seed$seed"
    "--config.data.category=$category" "--config.seed=$seed")
}

# In a job: SLURM starts a copy of this file, in the folder of the submission.
if [ "${1:-}" = "--task" ]; then
  shift
  # shellcheck source=launch/environment.sh
  source launch/environment.sh
  choose "$SLURM_ARRAY_TASK_ID" "$@"
  task "${command[@]}"
fi

cd "$(dirname "$0")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh

dry=""
if [ "${1:-}" = "--dry-run" ]; then
  dry=1
  shift
fi
CATEGORIES="${CATEGORIES:-}" SEEDS="${SEEDS-0}" CONFIG="${CONFIG:-configs/loco.py}"
DATA="${DATA:-}" RUNS="${RUNS:-runs/slurm}" EXTRA="${EXTRA-cuda12}" NODES="${NODES:-1}"
GPUS="${GPUS:-1}" CPUS="${CPUS:-4}" TIME="${TIME:-04:00:00}" GRACE="${GRACE:-120}"
AT_ONCE="${AT_ONCE:-}"

names CATEGORIES pushpins,juice_bottle, or all
numbers SEEDS
positive NODES GPUS CPUS GRACE ${AT_ONCE:+AT_ONCE}
[ "$GRACE" -le 65535 ] || refuse "GRACE is $GRACE; SLURM allows 65535 seconds at most."
extras
[ -f "${CONFIG%%:*}" ] || refuse "CONFIG is '$CONFIG'; there is no such file in $PWD."
reserve "--config --workdir --config.data.category --config.seed --multihost" "$@"

# Alone, a process takes all GPUs of its node. Of several that find one another through
# SLURM, JAX gives each the GPU numbered SLURM_LOCALID among those of its node: hence a
# process for each GPU, all of which see all of them (so no --gpus-per-task).
processes=1
[ "$NODES" -eq 1 ] || processes="$GPUS"
start=(srun "--nodes=$NODES" "--ntasks=$((NODES * processes))"
  "--ntasks-per-node=$processes" "--cpus-per-task=$CPUS" --gpu-bind=none
  --kill-on-bad-exit=0 # the first to end with 75 must not kill the others
  .venv/bin/python -m nps_jax.train)
[ "$NODES" -eq 1 ] || start+=(--multihost)
start+=("--config=$CONFIG")
[ -z "$DATA" ] || start+=("--config.data.root=$DATA")
run=("$CATEGORIES" "$SEEDS" "$RUNS" "${start[@]}" "$@")

IFS=, read -ra categories <<<"$CATEGORIES"
IFS=, read -ra seeds <<<"$SEEDS"
count=$((${#categories[@]} * ${#seeds[@]}))
submit=(sbatch --job-name=nps_jax "--array=0-$((count - 1))${AT_ONCE:+%$AT_ONCE}"
  "--nodes=$NODES" "--ntasks-per-node=$processes" "--gpus-per-node=$GPUS"
  "--cpus-per-task=$CPUS" "--time=$TIME" "--signal=TERM@$GRACE" --requeue
  --open-mode=append "--output=$RUNS/slurm-%A_%a.out"
  launch/slurm.sh --task "${run[@]}")

if [ -n "$dry" ]; then
  quoted "${submit[@]}"
  for ((place = 0; place < count; place++)); do
    choose "$place" "${run[@]}"
    quoted "${command[@]}"
  done
  exit 0
fi
type sbatch >/dev/null 2>&1 ||
  refuse "There is no sbatch here; start this on a login node."
prepare "$EXTRA"
mkdir -p "$RUNS"
exec "${submit[@]}"
