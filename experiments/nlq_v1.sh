#!/usr/bin/env bash
# Ego4D NLQ v1: three features, without NaQ, with NaQ (stage 1), and fine-tuned (stage 2).
#
#   bash experiments/nlq_v1.sh --devices 0,1,2,3                 # VSLNet
#   bash experiments/nlq_v1.sh --devices 0,1,2,3 --model reler
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

features=(slowfast egovlp internvideo)
prepare_data "${features[@]}"
for FEATURE in "${features[@]}"; do
  for ((SEED = 1; SEED <= SEEDS; SEED++)); do
    runs="$RUNS/$FEATURE/seed$SEED"
    step "$FEATURE (seed $SEED of $SEEDS)"
    train_on_nlq "$runs/nlq_only"
    train_on_naq "$runs/stage_1"
    fine_tune "$runs/tuned" "$runs/stage_1"
    row "$FEATURE, NLQ only" "$runs/nlq_only"
    row "$FEATURE, NaQ stage 1" "$runs/stage_1"
    row "$FEATURE, NaQ + fine-tuning" "$runs/tuned"
  done
done
show "NLQ v1, validation split"
