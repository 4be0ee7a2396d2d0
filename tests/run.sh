#!/usr/bin/env bash
# Set up (once) and run the whole suite; further arguments go to pytest, for instance
#   bash tests/run.sh -m "not slow"        # the quick part
#   bash tests/run.sh tests/utils/data -x  # one room, stop at the first failure
MORE_REQUIREMENTS=tests/requirements.txt
source "$(dirname "${BASH_SOURCE[0]}")/../utils/environment.sh"
cd "$CODE_ROOT"
# Three processes for two cores, as some tests wait for what they started; one thread each.
export OMP_NUM_THREADS=1
exec "$PYTHON" -m pytest -n "${TEST_PROCESSES:-3}" --dist worksteal "$@"
