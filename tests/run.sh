#!/usr/bin/env bash
# Set up (once) and run the whole suite; further arguments go to pytest, for instance
#   bash tests/run.sh -m "not slow"        # the quick part
#   bash tests/run.sh tests/utils/data -x  # one room, stop at the first failure
MORE_REQUIREMENTS=tests/requirements.txt
source "$(dirname "${BASH_SOURCE[0]}")/../utils/environment.sh"
cd "$CODE_ROOT"
# One thread a process: two test processes share two cores better than they fight over them.
export OMP_NUM_THREADS=1
exec "$PYTHON" -m pytest -n "${TEST_PROCESSES:-2}" --dist worksteal "$@"
