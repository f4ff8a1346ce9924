#!/usr/bin/env bash
# One run on all hosts of a Cloud TPU slice, which is made for it and deleted after it.
#   NAME=nps ZONE=us-west4-a NFS=10.0.0.2:/share WORKDIR=/mnt/nps_jax/runs/pushpins \
#     ./launch/tpu_pod.sh [--dry-run] [options of nps_jax.train]
# launch/README.md lists the settings, and what to set up beforehand.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh

dry=""
if [ "${1:-}" = "--dry-run" ]; then
  dry=1
  shift
fi
NAME="${NAME:-}" ZONE="${ZONE:-}" PROJECT="${PROJECT:-}" TYPE="${TYPE:-v5litepod-16}"
VERSION="${VERSION:-v2-alpha-tpuv5-lite}" CONFIG="${CONFIG:-configs/loco.py}"
WORKDIR="${WORKDIR:-}" NFS="${NFS:-}" MOUNT="${MOUNT:-/mnt/nps_jax}" QUEUE="${QUEUE:-}"
SPOT="${SPOT:-}" REUSE="${REUSE:-}" KEEP="${KEEP:-}" PYTHON="${PYTHON:-}"
PAUSE="${PAUSE:-30}" GRACE="${GRACE:-120}" OUT="${OUT:-runs/${NAME:-}}"

[[ $NAME =~ ^[a-z]([a-z0-9-]*[a-z0-9])?$ ]] ||
  refuse "NAME is '$NAME'; expected a name for the slice: small letters, digits and" \
    "hyphens, a letter first, such as nps-1."
[[ $ZONE =~ ^[a-z0-9-]+$ ]] ||
  refuse "ZONE is '$ZONE'; expected a zone with TPUs, such as us-west4-a." \
    "'gcloud compute tpus locations list' names them."
[[ $WORKDIR != *://* ]] ||
  refuse "WORKDIR is '$WORKDIR'; buckets do not work yet. Expected a folder on a" \
    "file system that all hosts mount, such as $MOUNT/runs/pushpins."
[[ $WORKDIR == /?* ]] ||
  refuse "WORKDIR is '$WORKDIR'; expected the full path of a folder that all hosts" \
    "see, such as $MOUNT/runs/pushpins."
[[ $MOUNT == /?* ]] ||
  refuse "MOUNT is '$MOUNT'; expected a full path, such as /mnt/nps_jax."
[[ -z $NFS || $NFS == ?*:/* ]] ||
  refuse "NFS is '$NFS'; expected SERVER:/EXPORT, such as 10.0.0.2:/share."
[[ -z $NFS || $WORKDIR == "$MOUNT"/?* ]] ||
  refuse "WORKDIR is '$WORKDIR', which is not on the share that NFS names; expected" \
    "$MOUNT/... (MOUNT is where it is mounted)."
for setting in QUEUE SPOT REUSE KEEP; do
  [[ ${!setting} =~ ^[01]?$ ]] || refuse "$setting is '${!setting}'; expected 1 or 0."
  [ "${!setting}" != 0 ] || printf -v "$setting" ""
done
for setting in PAUSE GRACE; do
  [[ ${!setting} =~ ^(0|[1-9][0-9]{0,4})$ ]] ||
    refuse "$setting is '${!setting}'; expected whole seconds from 0 to 99999."
done
[ -f "${CONFIG%%:*}" ] || refuse "CONFIG is '$CONFIG'; there is no such file in $PWD."
reserve "--config --workdir --multihost" "$@"

place=("--zone=$ZONE" --quiet)
[ -z "$PROJECT" ] || place+=("--project=$PROJECT")
nodes=(gcloud compute tpus tpu-vm) requests=(gcloud compute tpus queued-resources)
names=(list "--format=value(name.basename())" "${place[@]}")
create=("${nodes[@]}" create "$NAME" "--accelerator-type=$TYPE" "--version=$VERSION")
remove=("${nodes[@]}" delete "$NAME" "${place[@]}")
if [ -n "$QUEUE" ]; then
  create=("${requests[@]}" create "$NAME" "--node-id=$NAME" "--accelerator-type=$TYPE"
    "--runtime-version=$VERSION")
  remove=("${requests[@]}" delete "$NAME" --force "${place[@]}")
fi
[ -z "$SPOT" ] || create+=(--spot)
create+=("${place[@]}")

# What runs on the hosts. Their Python may be older than 3.11: uv fetches another.
folder="$(quoted "$WORKDIR")" mount="$(quoted "$MOUNT")"
venv="python3 -m pip install --quiet --user uv"
venv+=" && python3 -m uv venv --quiet --seed --python 3.12 .venv"
[ -z "$PYTHON" ] || venv="$(quoted "$PYTHON") -m venv .venv"
install="rm -rf nps_jax && mkdir nps_jax && tar -xzf nps_jax.tar.gz -C nps_jax"
install+=" && cd nps_jax && $venv && .venv/bin/python -m pip install --quiet '.[tpu]'"
# A host must not remember for long which files the others did not have.
share="mountpoint -q $mount || { sudo apt-get -qq update"
share+=" && sudo apt-get -qqy install nfs-common && sudo mkdir -p $mount && sudo mount"
share+=" -t nfs -o hard,lookupcache=positive,actimeo=1 $(quoted "$NFS") $mount; }"
mark="rm -rf $folder/.hosts && mkdir -p $folder/.hosts"
look="touch $folder/.hosts/\$(hostname)"
train=".venv/bin/python -m nps_jax.train $(quoted --multihost "--config=$CONFIG" \
  "--workdir=$WORKDIR" "$@")"
train="cd nps_jax && echo \$\$ >train.pid && exec $train"
stop="pid=\$(cat nps_jax/train.pid); if kill -TERM \$pid 2>/dev/null;"
stop+=" then timeout $GRACE tail --pid=\$pid -f /dev/null; fi"
pack="cd $folder && rm -rf .hosts && find . -maxdepth 1 '(' -name 'results.*' -o"
pack+=" -name metrics.jsonl -o -name config.json -o -name 'calibration.*' ')' -print0 |"
pack+=" tar -czf ~/results.tar.gz --null -T -"

# Runs a command, or prints it. It runs beside the shell, since bash acts on a signal at
# once only while it waits, and in a group of its own, which Ctrl-C does not reach.
set -m
child=""
run() {
  local code=0
  if [ -n "$dry" ]; then
    quoted "$@"
    return
  fi
  "$@" </dev/null &
  child=$!
  wait "$child" || code=$?
  child=""
  return "$code"
}

on() { # on WORKER COMMAND, where WORKER is a number or all
  run "${nodes[@]}" ssh "$NAME" "--worker=$1" "--command=$2" "${place[@]}"
}

# Ends with 0 if there is such a slice or request, 1 if not, 2 if nobody knows.
exists() {
  local found
  found="$("${nodes[@]}" "${names[@]}")" || return 2
  if [ -n "$QUEUE" ]; then
    found+=$'\n'"$("${requests[@]}" "${names[@]}")" || return 2
  fi
  grep -Fxq -- "$NAME" <<<"$found"
}

make() {
  local code=0 state
  if [ -n "$dry" ]; then
    quoted "${nodes[@]}" "${names[@]}"
    [ -z "$QUEUE" ] || quoted "${requests[@]}" "${names[@]}"
  else
    exists || code=$?
    [ "$code" -ne 0 ] || refuse "There is a slice or a request named $NAME in $ZONE" \
      "already. Choose another NAME, or set REUSE=1 to use that slice."
    [ "$code" -eq 1 ] || refuse "The slices in $ZONE could not be listed; see above."
  fi
  made=1
  run "${create[@]}"
  [ -n "$QUEUE" ] || return 0
  local describe=("${requests[@]}" describe "$NAME" "--format=value(state.state)"
    "${place[@]}")
  while [ -z "$dry" ]; do
    state="$("${describe[@]}")" || state="" # such as a lost connection: asked again
    case "$state" in
      ACTIVE) return ;;
      FAILED | SUSPEND*) refuse "The request for the slice is $state." ;;
    esac
    run sleep "$PAUSE"
  done
  quoted "${describe[@]}"
}

delete() {
  local attempt code
  for attempt in 1 2 3; do
    [ "$attempt" -eq 1 ] || run sleep "$PAUSE"
    run "${remove[@]}" && return
    code=0
    exists || code=$?
    [ "$code" -ne 1 ] || return 0
  done
  echo "$NAME could not be deleted AND COSTS MONEY. Delete it:" \
    "$(quoted "${remove[@]}")" >&2
  return 1
}

fetch() {
  on 0 "$pack" &&
    run "${nodes[@]}" scp "$NAME:results.tar.gz" "$OUT/results.tar.gz" --worker=0 \
      "${place[@]}" &&
    run tar -xzf "$OUT/results.tar.gz" -C "$OUT" && return
  echo "The results could not be fetched. They stay in $WORKDIR." >&2
  return 1
}

# At every end: asks a run that goes on for a checkpoint, fetches, deletes.
finish() {
  local code=$? left="$child"
  trap '' INT TERM HUP # nothing may keep the slice from being deleted
  set +e
  if [ -n "$trained" ] && [ "$code" -ne 0 ]; then
    on all "$stop"
  fi
  if [ -n "$left" ]; then
    kill -KILL -- "-$left" 2>/dev/null
    wait "$left" 2>/dev/null
  fi
  if [ -n "$trained" ]; then
    fetch || [ "$code" -ne 0 ] || code=1
  fi
  if [ -n "$made" ] && [ -z "$KEEP" ]; then
    delete || [ "$code" -ne 0 ] || code=1
  fi
  exit "$code"
}

made="" trained=""
archive="$OUT/nps_jax.tar.gz"
if [ -z "$dry" ]; then
  type gcloud >/dev/null 2>&1 ||
    refuse "There is no gcloud here; install the Google Cloud CLI."
  git diff --quiet HEAD -- ||
    refuse "Not everything here is committed, and only what is goes to the hosts." \
      "Commit the changes, or undo them."
  git cat-file -e "HEAD:${CONFIG%%:*}" 2>/dev/null ||
    refuse "CONFIG is '$CONFIG'; git does not track that file, so it would be missing" \
      "on the hosts. Commit it."
  mkdir -p "$OUT"
fi
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exec >>"$OUT/tpu_pod.log" 2>&1; exit 129' HUP # the terminal is gone

run git archive --format=tar.gz "--output=$archive" HEAD
[ -n "$REUSE" ] || make
run "${nodes[@]}" scp "$archive" "$NAME:nps_jax.tar.gz" --worker=all "${place[@]}"
on all "$install"
[ -z "$NFS" ] || on all "$share"
on 0 "$mark"
on all "$look" ||
  refuse "Not all hosts may write into $WORKDIR. It must be one folder on a file" \
    "system that all of them mount: set NFS, or mount it yourself."
trained=1
on all "$train"
