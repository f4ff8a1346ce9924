# Sourced by the other scripts: a virtual environment in .venv with this package.
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
