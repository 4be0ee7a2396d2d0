#!/usr/bin/env bash
# For which queries NaQ helps: NLQ only and NaQ with fine-tuning, by template, by how often training
# asks about the object, by length and position of the window; with bootstrap intervals.
#
#   bash experiments/breakdowns.sh --devices 0,1,2,3 --feature egovlp
#   bash experiments/breakdowns.sh --small --seeds 3
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

prepare_data "$FEATURE"
for ((SEED = 1; SEED <= SEEDS; SEED++)); do
  runs="$RUNS/seed$SEED"
  step "NLQ only (seed $SEED of $SEEDS)"
  train_on_nlq "$runs/nlq_only"
  step "NaQ stage 1 (seed $SEED of $SEEDS)"
  train_on_naq "$runs/joint"
  step "NaQ stage 2 (seed $SEED of $SEEDS)"
  fine_tune "$runs/tuned" "$runs/joint"
  keep "NLQ only" "$runs/nlq_only"
  keep "NaQ + fine-tuning" "$runs/tuned"
done
compare_kept "By group" --train_annotations "$DATA/$TRAIN_ANNOTATIONS" --plots "$RUNS/breakdowns"
