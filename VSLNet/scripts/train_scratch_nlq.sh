#!/usr/bin/env bash
# VSLNet on NLQ only, from scratch: what NaQ is compared with.
# TASK is nlq, nlq_v2 or tacos; FEAT a folder under data/features; runs go to EXPT_ROOT.
# Example: VSLNet/scripts/train_scratch_nlq.sh 0 nlq egovlp experiments/runs/scratch 0.001

source "$(dirname "${BASH_SOURCE[0]}")/../../utils/entry.sh"
arguments DEVICES TASK FEAT EXPT_ROOT LR -- "$@"
describe_task "$TASK"
describe_stage VSLNet scratch

launch VSLNet/main.py --mode train --predictor bert \
  --task "$DATASET" --fv "$FEAT" --max_pos_len "$UNITS" \
  --data_root "$DATA_ROOT" --eval_gt_json "$DATA_ROOT/$VAL_ANNOTATIONS" \
  --epochs "$EPOCHS" --batch_size "$BATCH_SIZE" --init_lr "$LR" \
  --remove_empty_queries_from train val \
  --model_dir "$EXPT_ROOT/checkpoints" \
  --tb_log_dir "$EXPT_ROOT/tb_logs" --log_to_tensorboard "${DATASET}_${FEAT}"
