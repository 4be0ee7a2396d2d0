#!/usr/bin/env bash
# Stage 2: fine-tune VSLNet on NLQ, starting from CKPT (a checkpoint file or a run folder).
# TASK is nlq, nlq_v2 or tacos; FEAT a folder under data/features; runs go to EXPT_ROOT.
# Example: VSLNet/scripts/finetune.sh 0 nlq egovlp experiments/runs/tuned 0.0001 experiments/runs/vslnet

source "$(dirname "${BASH_SOURCE[0]}")/../../utils/entry.sh"
arguments DEVICES TASK FEAT EXPT_ROOT LR CKPT -- "$@"
describe_task "$TASK"
describe_stage VSLNet tuning

launch VSLNet/main.py --mode train --predictor bert \
  --task "$DATASET" --fv "$FEAT" --max_pos_len "$UNITS" \
  --data_root "$DATA_ROOT" --eval_gt_json "$DATA_ROOT/$VAL_ANNOTATIONS" \
  --epochs "$EPOCHS" --batch_size "$BATCH_SIZE" --init_lr "$LR" --warmup_proportion "$WARMUP_PROPORTION" \
  --init_from "$CKPT" \
  --remove_empty_queries_from train val \
  --model_dir "$EXPT_ROOT/checkpoints" \
  --tb_log_dir "$EXPT_ROOT/tb_logs" --log_to_tensorboard "${DATASET}_${FEAT}"
