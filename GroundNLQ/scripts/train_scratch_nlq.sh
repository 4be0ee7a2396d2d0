#!/usr/bin/env bash
# GroundNLQ on NLQ only, from scratch: what NaQ is compared with.
# TASK is nlq, nlq_v2 or tacos; FEAT a folder under data/features; runs go to EXPT_ROOT.
# Example: GroundNLQ/scripts/train_scratch_nlq.sh 0 nlq_v2 internvideo runs/scratch 0.0001

source "$(dirname "${BASH_SOURCE[0]}")/../../utils/entry.sh"
arguments DEVICES TASK FEAT EXPT_ROOT LR -- "$@"
describe_task "$TASK"
describe_stage GroundNLQ scratch

launch GroundNLQ/main.py --mode train \
  --task "$DATASET" --fv "$FEAT" \
  --data_root "$DATA_ROOT" --eval_gt_json "$DATA_ROOT/$VAL_ANNOTATIONS" \
  --epochs "$EPOCHS" --warmup_epochs "$WARMUP" --batch_size "$BATCH_SIZE" --lr "$LR" \
  --results_root "$EXPT_ROOT" --exp_id "${DATASET}_${FEAT}"
