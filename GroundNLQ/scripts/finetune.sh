#!/usr/bin/env bash
# Stage 2: fine-tune GroundNLQ on NLQ, starting from CKPT (a checkpoint file or a run folder).
# TASK is nlq, nlq_v2 or tacos; FEAT a folder under data/features. As published, with new heads:
# --new_heads
# Example: GroundNLQ/scripts/finetune.sh 0 nlq_v2 internvideo runs/tuned 0.00005 runs/groundnlq

source "$(dirname "${BASH_SOURCE[0]}")/../../utils/entry.sh"
arguments DEVICES TASK FEAT EXPT_ROOT LR CKPT -- "$@"
describe_task "$TASK"
describe_stage GroundNLQ tuning

launch GroundNLQ/main.py --mode train \
  --task "$DATASET" --fv "$FEAT" \
  --data_root "$DATA_ROOT" --eval_gt_json "$DATA_ROOT/$VAL_ANNOTATIONS" \
  --epochs "$EPOCHS" --warmup_epochs "$WARMUP" --batch_size "$BATCH_SIZE" --lr "$LR" --init_from "$CKPT" \
  --results_root "$EXPT_ROOT" --exp_id "${DATASET}_${FEAT}"
