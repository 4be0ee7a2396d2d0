#!/usr/bin/env bash
# Labels from exact times and, as published, from truncated times: how many are wrong, and what a
# model learns from them, in the quickstart's simulated world.
#
#   bash experiments/label_times.sh --seeds 3
GIVEN=("$@") # setup.sh takes them off one by one
EXPERIMENT=quickstart
WORLD=small
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

for times in exact published; do
  bash "$CODE_ROOT/experiments/quickstart.sh" "${GIVEN[@]}" --label_times "$times"
done
printf '\nThe data; `labels of` says how many miss the window (VSLNet) or are left out (ReLER):\n'
program check_data --task "$TASK" --data_root "$DATA" --features "$FEATURE" --units 64
