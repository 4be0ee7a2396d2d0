#!/usr/bin/env bash
# TACoS, with and without NaQ made of Ego4D narrations.
#
#   bash experiments/tacos.sh --devices 0,1,2,3 --feature slowfast
TASK=tacos
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

prepare_data "$FEATURE"
for ((SEED = 1; SEED <= SEEDS; SEED++)); do
  runs="$RUNS/seed$SEED"
  step "TACoS (seed $SEED of $SEEDS)"
  train_on_nlq "$runs/tacos_only"
  train_on_naq "$runs/stage_1"
  fine_tune "$runs/tuned" "$runs/stage_1"
  row "TACoS only" "$runs/tacos_only"
  row "NaQ stage 1" "$runs/stage_1"
  row "NaQ + fine-tuning" "$runs/tuned"
done
show "TACoS, validation split"
