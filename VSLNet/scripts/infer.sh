#!/usr/bin/env bash
# Predict SPLIT (val or test) with the last checkpoint under EXPT_ROOT: writes the challenge file
# beside the checkpoint, and prints the score table where the split has ground truth.
# A fine-tuned run is preferred to a stage-1 run in the same EXPT_ROOT.
# The file of the test split is checked as the challenge server would.
# Example: VSLNet/scripts/infer.sh 0 nlq test egovlp experiments/runs/tuned

source "$(dirname "${BASH_SOURCE[0]}")/../../utils/entry.sh"
arguments DEVICES TASK SPLIT FEAT EXPT_ROOT -- "$@"
describe_task "$TASK"
choose_annotations "$SPLIT"

RUNS="$EXPT_ROOT/checkpoints"
if ! compgen -G "$RUNS/*_${DATASET}_${FEAT}_*" >/dev/null &&
  compgen -G "$RUNS/*_${NAQ_DATASET}_${FEAT}_*" >/dev/null; then
  DATASET="$NAQ_DATASET"
fi

launch VSLNet/main.py --mode "$SPLIT" --check_submission --predictor bert \
  --task "$DATASET" --fv "$FEAT" --max_pos_len "$UNITS" \
  --data_root "$DATA_ROOT" --eval_gt_json "$DATA_ROOT/$ANNOTATIONS" \
  --remove_empty_queries_from val \
  --model_dir "$RUNS"
