#!/usr/bin/env bash
# ReLER on NLQ only, from scratch: what NaQ is compared with.
# TASK is nlq, nlq_v2 or tacos; FEAT a folder under data/features (clip is always added).
# Example: ReLER/scripts/train_scratch_nlq.sh 0 nlq egovlp experiments/runs/scratch 0.0001

source "$(dirname "${BASH_SOURCE[0]}")/../../utils/entry.sh"
arguments DEVICES TASK FEAT EXPT_ROOT LR -- "$@"
describe_task "$TASK"
describe_stage ReLER scratch

launch ReLER/main.py --mode train \
  --task "$DATASET" --fv "$FEAT" \
  --data_root "$DATA_ROOT" --eval_gt_json "$DATA_ROOT/$VAL_ANNOTATIONS" \
  --epochs "$EPOCHS" --batch_size "$BATCH_SIZE" --lr "$LR" \
  --results_root "$EXPT_ROOT" --exp_id "${DATASET}_${FEAT}"
