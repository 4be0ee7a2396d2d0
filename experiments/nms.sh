#!/usr/bin/env bash
# What temporal non-maximum suppression does: the same run, its five windows as published (often
# nearly the same) and kept apart at several thresholds.
#
#   bash experiments/nms.sh --devices 0,1,2,3 --feature egovlp
#   bash experiments/nms.sh --small
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

prepare_data "$FEATURE"
SEED=1
step "NaQ stage 1"
train_on_naq "$RUNS/stage_1"
step "As published"
script infer val "$FEATURE" "$RUNS/stage_1" "${SIZES[@]}"
for threshold in 0.3 0.5 0.7; do
  step "Windows that overlap by more than $threshold left out"
  script infer val "$FEATURE" "$RUNS/stage_1" "${SIZES[@]}" --nms_threshold "$threshold"
done
