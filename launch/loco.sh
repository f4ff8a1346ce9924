#!/usr/bin/env bash
# A benchmark from the download of its images to one table: MVTec LOCO AD or MVTec AD.
#   ACCEPT_LICENCE=1 ./launch/loco.sh [--dry-run] [options of nps_jax.sweep]
#   DATASET=mvtec_ad GPUS=4 ... on a machine with four; SLURM=1 ... on a cluster
# Started again, it goes on with what is missing. launch/README.md lists the settings.
set -euo pipefail

# In a job of SLURM's array, which starts a copy of this file in the repository.
if [ "${1:-}" = "--task" ]; then
  count="$2"
  shift 2
  # shellcheck source=launch/environment.sh
  source launch/environment.sh
  task "$@" "--part=$SLURM_ARRAY_TASK_ID/$count"
fi

cd "$(dirname "$0")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh

dry=""
if [ "${1:-}" = "--dry-run" ]; then
  dry=1
  shift
fi
DATASET="${DATASET:-mvtec_loco}"
case "$DATASET" in
  mvtec_loco)
    config=configs/loco.py
    all=breakfast_box,juice_bottle,pushpins,screw_bag,splicing_connectors
    size="6.1 GB" counts=356,61,314 pixels=1280x1600 # of a category, in the mean
    ;;
  mvtec_ad)
    config=configs/mvtec_ad.py
    all=bottle,cable,capsule,carpet,grid,hazelnut,leather,metal_nut,pill,screw,tile
    all+=,toothbrush,transistor,wood,zipper
    size="5.3 GB" counts=218,24,115 pixels=1024x1024
    ;;
  *) refuse "DATASET is '$DATASET'; expected mvtec_loco or mvtec_ad." ;;
esac
CATEGORIES="${CATEGORIES:-$all}" SEEDS="${SEEDS:-0,1,2}" CONFIG="${CONFIG:-$config}"
VARIANTS="${VARIANTS:-default,paper,no-decoders}" DATA="${DATA:-data/$DATASET}"
OUT="${OUT:-runs/$DATASET}" EXTRA="${EXTRA-cuda12}" GPUS="${GPUS:-1}"
SLURM="${SLURM:-0}" CPUS="${CPUS:-4}" TIME="${TIME:-12:00:00}" GRACE="${GRACE:-120}"
ACCEPT_LICENCE="${ACCEPT_LICENCE:-0}"

names CATEGORIES "$all"
numbers SEEDS
names VARIANTS "default,paper, of configs/ablation.py"
positive GPUS CPUS GRACE
for setting in SLURM ACCEPT_LICENCE; do
  [[ ${!setting} =~ ^[01]$ ]] || refuse "$setting is '${!setting}'; expected 1 or 0."
done
[ "$GPUS" -eq 1 ] || [ -z "${CUDA_VISIBLE_DEVICES:-}" ] ||
  [ "$GPUS" -le "$(tr , '\n' <<<"$CUDA_VISIBLE_DEVICES" | wc -l)" ] ||
  refuse "GPUS is $GPUS, and CUDA_VISIBLE_DEVICES lists fewer: $CUDA_VISIBLE_DEVICES."
[ "$SLURM" = 0 ] || [ "$GPUS" -eq 1 ] ||
  refuse "GPUS is $GPUS; under SLURM each task has one."
extras
[ -f "${CONFIG%%:*}" ] || refuse "CONFIG is '$CONFIG'; there is no such file in $PWD."
reserved="--config --config.data.root --variants --only --categories --seeds --out"
reserve "$reserved --ahead --part --tables" "$@"

python=.venv/bin/python
IFS=, read -ra categories <<<"$CATEGORIES"
IFS=, read -ra seeds <<<"$SEEDS"
IFS=, read -ra devices <<<"${CUDA_VISIBLE_DEVICES:-}" # else all, by number
units=$((${#categories[@]} * ${#seeds[@]})) # all variants of a category and a seed
fetch=("$python" -m nps_jax.data.fetch "--name=$DATASET" "--out=$DATA")
[ "$ACCEPT_LICENCE" = 0 ] || fetch+=(--accept-licence)
sweep=("$python" -m nps_jax.sweep "--config=$CONFIG" --variants=configs/ablation.py
  "--only=$VARIANTS" "--categories=$CATEGORIES" "--seeds=$SEEDS" "--out=$OUT"
  "--config.data.root=$DATA" "$@")
submit=(sbatch --parsable --job-name=nps_jax "--array=0-$((units - 1))" --nodes=1
  --ntasks-per-node=1 --gpus-per-node=1 "--cpus-per-task=$CPUS" "--time=$TIME"
  "--signal=TERM@$GRACE" --requeue --open-mode=append "--output=$OUT/slurm-%A_%a.out"
  launch/loco.sh --task "$units" srun --nodes=1 --ntasks=1 "--cpus-per-task=$CPUS"
  "${sweep[@]}")
afterwards=(sbatch --job-name=nps_jax-tables --time=00:30:00
  "--output=$OUT/slurm-tables.out" "--wrap=$(quoted "${sweep[@]}" --tables)")

# Runs a part of the sweep on each GPU, its output in a file; hands signals on to all.
parts() {
  local gpu pid status code=0 pids=()
  set -m # in groups of their own, which Ctrl-C does not reach: it would come twice
  for ((gpu = 0; gpu < GPUS; gpu++)); do
    CUDA_VISIBLE_DEVICES="${devices[gpu]:-$gpu}" "${sweep[@]}" "--part=$gpu/$GPUS" \
      >>"$OUT/part$gpu.log" 2>&1 &
    pids+=($!)
  done
  # shellcheck disable=SC2064  # the numbers as they are now
  trap "kill -TERM ${pids[*]} 2>/dev/null || true" INT TERM HUP
  for pid in "${pids[@]}"; do
    while status=0; do
      wait "$pid" || status=$?
      kill -0 "$pid" 2>/dev/null || break # else a signal only ended the waiting
    done
    [ "$status" -eq 0 ] || [ "$code" -eq 75 ] || code="$status"
  done
  return "$code"
}

# Prints every step, and what to expect of it.
describe() {
  echo "# $DATASET: ${#categories[@]} categories x ${#seeds[@]} seeds," \
    "and of each the variants $VARIANTS."
  if [ -d "$DATA" ]; then
    echo "# 1. The images are in $DATA."
  else
    echo "# 1. Fetch the images, $size, to $DATA: some 10 minutes at 100 Mbit/s."
    [ "$ACCEPT_LICENCE" = 1 ] ||
      echo "#    Without ACCEPT_LICENCE=1 this only shows the licence, and ends."
    quoted "${fetch[@]}"
  fi
  echo "# 2. Fetch the encoder's weights and CLIP, 0.8 GB, unless they are cached."
  quoted "${sweep[@]}" --ahead
  if [ "$SLURM" = 1 ]; then
    echo "# 3. A task for each category and seed: train, calibrate, evaluate."
    quoted "${submit[@]}"
    echo "# 4. The table, when all have ended: $OUT/sweep.md and sweep.html."
    quoted "${afterwards[@]}"
  elif [ "$GPUS" -gt 1 ]; then
    echo "# 3. A part for each GPU, all at once: train, calibrate, evaluate."
    local gpu
    for ((gpu = 0; gpu < GPUS; gpu++)); do
      echo "CUDA_VISIBLE_DEVICES=${devices[gpu]:-$gpu}" \
        "$(quoted "${sweep[@]}" "--part=$gpu/$GPUS") &"
    done
    echo wait
    echo "# 4. The table: $OUT/sweep.md and sweep.html."
    quoted "${sweep[@]}" --tables
  else
    echo "# 3. Train, calibrate, evaluate, one after the other, then the table:" \
      "$OUT/sweep.md and sweep.html."
    quoted "${sweep[@]}"
  fi
}

# Prints hours and memory, measured here, as far as there is an interpreter for that.
expect() {
  local runs=("--runs=$units" "--at-once=$GPUS" "--counts=$counts" "--pixels=$pixels")
  [ "$SLURM" = 0 ] || runs[1]="--at-once=$units"
  if [ ! -x "$python" ]; then
    echo "# How long that takes here is measured by --dry-run once there is .venv:"
    echo "#   python3 -m venv .venv && $python -m pip install -e '.${EXTRA:+[$EXTRA]}'"
    return
  fi
  echo "# What to expect is measured now, which takes some minutes on a CPU."
  {
    "$python" -m nps_jax.study.expected "--config=$CONFIG" \
      --variants=configs/ablation.py "--only=$VARIANTS" "${runs[@]}" "$@" 2>&1 ||
      echo "So the hours are not known."
  } | sed 's/^/# /'
}

if [ -n "$dry" ]; then
  describe
  expect "$@"
  exit 0
fi
[ "$SLURM" = 0 ] || type sbatch >/dev/null 2>&1 ||
  refuse "There is no sbatch here; start this on a login node."
prepare "$EXTRA"
[ -d "$DATA" ] || "${fetch[@]}"
"${sweep[@]}" --ahead
mkdir -p "$OUT"
if [ "$SLURM" = 1 ]; then
  job="$("${submit[@]}")"
  exec "${afterwards[@]:0:1}" "--dependency=afterany:${job%%;*}" "${afterwards[@]:1}"
fi
[ "$GPUS" -gt 1 ] || exec "${sweep[@]}"
code=0
parts || code=$?
[ "$code" -ne 75 ] || exit 75
"${sweep[@]}" --tables
exit "$code"
