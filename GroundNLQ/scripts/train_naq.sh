#!/usr/bin/env bash
# Stage 1: GroundNLQ on NLQ and NaQ together (narrations turned into queries).
# TASK is nlq, nlq_v2 or tacos; FEAT a folder under data/features (or several, internvideo+clip);
# runs go to EXPT_ROOT. NAR_EXP_FACTOR scales narration windows (10 as published).
# As published, on narrations alone: --zeroshot_subsample_clips /dev/null
# Example: GroundNLQ/scripts/train_naq.sh 0,1,2,3 nlq_v2 internvideo runs/groundnlq 10

source "$(dirname "${BASH_SOURCE[0]}")/../../utils/entry.sh"
arguments DEVICES TASK FEAT EXPT_ROOT NAR_EXP_FACTOR -- "$@"
describe_task "$TASK"
describe_stage GroundNLQ naq

launch GroundNLQ/main.py --mode train \
  --task "$NAQ_DATASET" --fv "$FEAT" \
  --data_root "$DATA_ROOT" --eval_gt_json "$DATA_ROOT/$VAL_ANNOTATIONS" \
  --epochs "$EPOCHS" --warmup_epochs "$WARMUP" --batch_size "$BATCH_SIZE" --lr "$RATE" \
  --nar_exp_factor "$NAR_EXP_FACTOR" --nar_translate \
  --results_root "$EXPT_ROOT" --exp_id "${NAQ_DATASET}_${FEAT}"
