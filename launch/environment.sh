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
