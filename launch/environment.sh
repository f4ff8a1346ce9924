# Sourced by the other scripts: what they share.

# Prints the words as one line, which a shell reads back as the same words.
quoted() {
  local word line=""
  for word in "$@"; do
    line+="${line:+ }"
    if [[ -n $word && $word != *[!A-Za-z0-9_./:=,@%+-]* ]]; then
      line+="$word"
      continue
    fi
    line+="'"
    while [[ $word == *"'"* ]]; do
      line+="${word%%"'"*}'\\''"
      word="${word#*"'"}"
    done
    line+="$word'"
  done
  printf '%s\n' "$line"
}

# Says what is wrong with a setting, and ends the script.
refuse() {
  printf '%s\n' "$*" >&2
  exit 2
}

# Refuses arguments for which the script has a setting.
# Usage: reserve "FLAG FLAG ..." ARGUMENTS
reserve() {
  local flags=" $1 " word
  shift
  for word in "$@"; do
    word="${word%%=*}"
    if [[ $flags == *" $word "* ]]; then
      refuse "$word cannot be given to this script: its settings say it." \
        "They are listed in launch/README.md."
    fi
  done
}

# Makes a virtual environment in .venv with this package.
# Usage: prepare EXTRA, where EXTRA is "" or an extra of pyproject.toml, such as "test".
prepare() {
  local extra="$1" stamp python=""
  for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
        2>/dev/null; then
      python="$candidate"
      break
    fi
  done
  if [ -z "$python" ]; then
    echo "Python 3.11 or newer is needed; set PYTHON to its path." >&2
    exit 1
  fi
  stamp=".venv/installed-${extra:-core}"
  if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check \
      --editable ".${extra:+[$extra]}"
    touch "$stamp"
  fi
}

# Runs a command as a task of an array of SLURM's, and ends with its status; if that is
# 75, the task is requeued.
# Usage: task COMMAND...
task() {
  local code=0
  # There is no trap for SIGTERM. sbatch --signal=TERM (no B:) sends it to what srun has
  # started, not to this shell: those processes save a checkpoint and end with 75, and
  # so does srun. If this shell is sent it too, SLURM itself ends the job (scancel, or
  # preemption without notice): the shell ends at once, and requeues nothing.
  "$@" || code=$?
  if [ "$code" -eq 75 ]; then
    # Not SLURM_JOB_ID: for one task of the array, that is the whole array's number.
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" ||
      echo "Not requeued; the same launch command goes on from the checkpoint." >&2
  fi
  exit "$code"
}

# Refuses a setting that is no list of names with commas between.
# Usage: names SETTING EXAMPLE...
names() {
  local name='[A-Za-z0-9_][A-Za-z0-9._+-]*' setting="$1"
  shift
  [[ ${!setting} =~ ^$name(,$name)*$ ]] ||
    refuse "$setting is '${!setting}'; expected names with commas and no spaces" \
      "between, such as $*."
  once "$setting"
}

# The same of whole numbers.
numbers() {
  local number='(0|[1-9][0-9]*)'
  [[ ${!1} =~ ^$number(,$number)*$ ]] ||
    refuse "$1 is '${!1}'; expected whole numbers from 0 on with commas and no" \
      "spaces between, such as 0,1,2."
  once "$1"
}

once() {
  local twice
  twice="$(tr , '\n' <<<"${!1}" | sort | uniq -d | tr '\n' ' ')"
  [ -z "$twice" ] || refuse "$1 has twice: ${twice% }. Each run needs a folder."
}

# Refuses settings that are no whole numbers from 1 on.
positive() {
  local setting
  for setting in "$@"; do
    [[ ${!setting} =~ ^[1-9][0-9]{0,4}$ ]] ||
      refuse "$setting is '${!setting}'; expected a whole number from 1 to 99999."
  done
}

# Refuses an EXTRA that cannot be one of pyproject.toml.
extras() {
  [[ $EXTRA =~ ^([a-z0-9]+(,[a-z0-9]+)*)?$ ]] ||
    refuse "EXTRA is '$EXTRA'; expected extras of pyproject.toml with commas" \
      "between, such as cuda12 or cuda12,tensorboard, or nothing."
}
