#!/usr/bin/env bash
# Does NaQ help? Simulates a small Ego4D, trains with and without NaQ and prints one table.
#
#   bash experiments/quickstart.sh                  # VSLNet, a few minutes on two CPU cores
#   bash experiments/quickstart.sh --seeds 3        # mean and spread over three seeds
#   bash experiments/quickstart.sh --model groundnlq    # ten minutes; or --model reler
#   bash experiments/quickstart.sh --label_times published
#   bash experiments/quickstart.sh --dry            # tiny world, one epoch: only tries whether it runs
WORLD=small
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

prepare_data "$FEATURE"
for ((SEED = 1; SEED <= SEEDS; SEED++)); do
  runs="$RUNS/seed$SEED"
  step "NLQ only (seed $SEED of $SEEDS)"
  train_on_nlq "$runs/nlq_only"
  step "NaQ stage 1, zero-shot: narrations only (seed $SEED of $SEEDS)"
  train_zero_shot "$runs"
  step "NaQ stage 1, joint: narrations and NLQ (seed $SEED of $SEEDS)"
  train_jointly "$runs"
  step "NaQ stage 2: fine-tuning on NLQ (seed $SEED of $SEEDS)"
  fine_tune "$runs/tuned" "$runs/joint"
  row "NLQ only" "$runs/nlq_only"
  row "NaQ stage 1, zero-shot" "$runs/zero_shot"
  row "NaQ stage 1, joint" "$runs/joint"
  row "NaQ + fine-tuning" "$runs/tuned"
done

step "Challenge file for the test split"
script infer test "$FEATURE" "$RUNS/seed1/tuned" "${SIZES[@]}"

step "A page to look through the validation queries"
runs="$RUNS/seed1"
for run in nlq_only tuned; do predict_val "$runs/$run" "$runs/$run/val.json"; done
program view_predictions --annotations "$DATA/$VAL_ANNOTATIONS" --output "$RUNS/predictions.html" \
  --predictions "NLQ only=$runs/nlq_only/val.json" "NaQ + fine-tuning=$runs/tuned/val.json"

show "Result on the validation split, in per cent"
