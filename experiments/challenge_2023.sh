#!/usr/bin/env bash
# The 2023 challenge entry (NaQ++): NLQ v2, InternVideo features, jitter up to 5, and the file to
# send to the challenge server.
#
#   bash experiments/challenge_2023.sh --devices 0,1,2,3 --model reler
TASK=nlq_v2
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

FEATURE=internvideo
FACTOR=5.0
prepare_data "$FEATURE"
for ((SEED = 1; SEED <= SEEDS; SEED++)); do
  runs="$RUNS/seed$SEED"
  step "Stage 1 (seed $SEED of $SEEDS)"
  train_on_naq "$runs/stage_1"
  step "Stage 2 (seed $SEED of $SEEDS)"
  fine_tune "$runs/tuned" "$runs/stage_1"
  row "NaQ stage 1" "$runs/stage_1"
  row "NaQ + fine-tuning" "$runs/tuned"
done
step "Challenge file"
script infer test "$FEATURE" "$RUNS/seed1/tuned" "${SIZES[@]}"
show "NLQ v2, validation split"
