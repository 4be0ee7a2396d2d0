#!/usr/bin/env bash
# Stage 2: fine-tune ReLER on NLQ, starting from CKPT (a checkpoint file or a run folder).
# TASK is nlq, nlq_v2 or tacos; FEAT a folder under data/features (clip is always added).
# Example: ReLER/scripts/finetune.sh 0 nlq_v2 internvideo runs/tuned 0.00001 runs/reler

source "$(dirname "${BASH_SOURCE[0]}")/../../utils/entry.sh"
arguments DEVICES TASK FEAT EXPT_ROOT LR CKPT -- "$@"
describe_task "$TASK"
describe_stage ReLER tuning

launch ReLER/main.py --mode train \
  --task "$DATASET" --fv "$FEAT" \
  --data_root "$DATA_ROOT" --eval_gt_json "$DATA_ROOT/$VAL_ANNOTATIONS" \
  --epochs "$EPOCHS" --batch_size "$BATCH_SIZE" --lr "$LR" --resume "$CKPT" \
  --results_root "$EXPT_ROOT" --exp_id "${DATASET}_${FEAT}"
