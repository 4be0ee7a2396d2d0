# Sourced by the shell entry points: reads their arguments, finds Python and launches the program.
#
# DEVICES is a list of GPU numbers (0,1,2), or cpu, or cpu,cpu for two processes.
# NAQ_ROOT (default: the checkout) holds data/; ~/enable_naq.sh is sourced if it exists.
# NAQ_MAX_RESTARTS (default: 0) is how often several processes are started again when one dies.

set -euo pipefail

CODE_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck disable=SC1090
if [ -f ~/enable_naq.sh ]; then source ~/enable_naq.sh; fi
NAQ_ROOT="${NAQ_ROOT:-$CODE_ROOT}"

fail() {
  echo "error: $*" >&2
  exit 2
}

# The active environment's Python, else the one that experiments/quickstart.sh made.
if [ -z "${PYTHON:-}" ]; then
  if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
    PYTHON=python
  elif [ -x "$CODE_ROOT/.venv/bin/python" ]; then
    PYTHON="$CODE_ROOT/.venv/bin/python"
  else
    PYTHON=python3
  fi
fi
command -v "$PYTHON" >/dev/null || fail "PYTHON is '$PYTHON', no such program"

# arguments NAME... -- "$@": positional arguments into variables of these names, the rest into OPTIONS.
arguments() {
  local names=()
  while [ "$1" != "--" ]; do
    names+=("$1")
    shift
  done
  shift
  local usage="usage: ${0##*/} ${names[*]} [--option value ...]"
  if [ "${1:-}" = "--help" ] || [ "${1:-}" = "-h" ]; then
    echo "$usage"
    # The comment at the head of the script explains it.
    sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0"
    exit 0
  fi
  local name
  for name in "${names[@]}"; do
    case "${1:-}" in
      "" | --*) fail "$name is missing; $usage" ;;
    esac
    printf -v "$name" '%s' "$1"
    shift
  done
  OPTIONS=("$@")
  if [ $# -gt 0 ] && [ "${1#--}" = "$1" ]; then fail "'$1' is one argument too many; $usage"; fi
  DATA_ROOT="$NAQ_ROOT/data"
  while [ $# -gt 0 ]; do
    case "$1" in
      --data_root) DATA_ROOT="${2:-}" ;;
      --data_root=*) DATA_ROOT="${1#*=}" ;;
    esac
    shift
  done
}

# describe_task TASK: DATASET, NAQ_DATASET, UNITS and files, as utils/base/tasks.py has them.
describe_task() { _ask_table tasks "$1"; }
# describe_stage MODEL STAGE: EPOCHS, BATCH_SIZE, RATE, WARMUP, ... as utils/base/stages.py has them.
describe_stage() { _ask_table stages "$@"; }
_ask_table() {
  local row
  row="$(PYTHONPATH="$CODE_ROOT" "$PYTHON" -c "
import sys
import utils.base.environment
from utils.base.errors import run_program
from utils.base.$1 import shell_variables
run_program(lambda: print(shell_variables(*sys.argv[1:])))" "${@:2}")"
  eval "$row"
}

# choose_annotations SPLIT: ANNOTATIONS, the file of the split to predict.
choose_annotations() {
  case "$1" in
    val) ANNOTATIONS="$VAL_ANNOTATIONS" ;;
    test) ANNOTATIONS="$TEST_ANNOTATIONS" ;;
    *) fail "SPLIT is '$1'; give val or test" ;;
  esac
}

# launch PROGRAM OPTION...: one process for each device in DEVICES; the user's options come last.
launch() {
  local program="$CODE_ROOT/$1" count
  shift
  count="$(awk -F, '{print NF}' <<<"$DEVICES")"
  if [[ "$DEVICES" =~ ^cpu(,cpu)*$ ]]; then
    export CUDA_VISIBLE_DEVICES=""
  elif [[ "$DEVICES" =~ ^[0-9]+(,[0-9]+)*$ ]]; then
    export CUDA_VISIBLE_DEVICES="$DEVICES"
    "$PYTHON" -c 'import sys, torch; sys.exit(torch.cuda.device_count() < int(sys.argv[1]))' "$count" ||
      fail "DEVICES is '$DEVICES', but this machine has no $count such GPUs; use cpu to run without"
  else
    fail "DEVICES is '$DEVICES'; give GPU numbers (0,1,2), or cpu, or cpu,cpu for two processes"
  fi
  if [ "$count" -eq 1 ]; then
    exec "$PYTHON" "$program" "$@" "${OPTIONS[@]}"
  fi
  exec "$PYTHON" "$CODE_ROOT/utils/launch.py" --max_restarts "${NAQ_MAX_RESTARTS:-0}" \
    "$count" "$program" "$@" "${OPTIONS[@]}"
}
