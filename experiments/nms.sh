#!/usr/bin/env bash
# What temporal non-maximum suppression gains: predictions of the same runs as published (the five
# windows are often nearly the same) and with NMS at several thresholds.
#
#   bash experiments/nms.sh --devices 0,1,2,3 --feature egovlp
#   bash experiments/nms.sh --small --seeds 3
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

prepare_data "$FEATURE"
for ((SEED = 1; SEED <= SEEDS; SEED++)); do
  run="$RUNS/seed$SEED/joint"
  step "NaQ stage 1 (seed $SEED of $SEEDS)"
  train_on_naq "$run"
  step "Predictions (seed $SEED of $SEEDS)"
  keep "as published" "$run"
  for threshold in 0.3 0.5 0.7; do keep "NMS $threshold" "$run" --nms_threshold "$threshold"; done
done
compare_kept "Windows as published, and none that overlap by more than a threshold"
