#!/usr/bin/env bash
# Predict SPLIT (val or test) with CKPT (a checkpoint file or a run folder; released files too):
# writes the challenge file beside it, and prints the score table where the split has ground truth.
# The file of the test split is checked as the challenge server would.
# Example: GroundNLQ/scripts/infer.sh 0 nlq_v2 test internvideo runs/tuned

source "$(dirname "${BASH_SOURCE[0]}")/../../utils/entry.sh"
arguments DEVICES TASK SPLIT FEAT CKPT -- "$@"
describe_task "$TASK"
choose_annotations "$SPLIT"

launch GroundNLQ/main.py --mode "$SPLIT" --check_submission \
  --task "$DATASET" --fv "$FEAT" --init_from "$CKPT" \
  --data_root "$DATA_ROOT" --eval_gt_json "$DATA_ROOT/$ANNOTATIONS"
