#!/usr/bin/env bash
# Stage 1: VSLNet on NLQ and NaQ together (narrations turned into queries).
# TASK is nlq, nlq_v2 or tacos; FEAT a folder under data/features; runs go to EXPT_ROOT.
# NAR_EXP_FACTOR scales narration windows (2.5; 5.0 in the 2023 challenge).
# Example: VSLNet/scripts/train_naq.sh 0,1,2,3 nlq egovlp experiments/runs/vslnet 2.5

source "$(dirname "${BASH_SOURCE[0]}")/../../utils/entry.sh"
arguments DEVICES TASK FEAT EXPT_ROOT NAR_EXP_FACTOR -- "$@"
describe_task "$TASK"
describe_stage VSLNet naq

launch VSLNet/main.py --mode train --predictor bert \
  --task "$NAQ_DATASET" --fv "$FEAT" --max_pos_len "$UNITS" \
  --data_root "$DATA_ROOT" --eval_gt_json "$DATA_ROOT/$VAL_ANNOTATIONS" \
  --epochs "$EPOCHS" --batch_size "$BATCH_SIZE" --init_lr "$RATE" --warmup_proportion "$WARMUP_PROPORTION" \
  --nar_exp_factor "$NAR_EXP_FACTOR" --nar_translate \
  --remove_empty_queries_from train val \
  --model_dir "$EXPT_ROOT/checkpoints" \
  --tb_log_dir "$EXPT_ROOT/tb_logs" --log_to_tensorboard "${NAQ_DATASET}_${FEAT}"
