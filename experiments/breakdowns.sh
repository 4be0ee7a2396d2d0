#!/usr/bin/env bash
# For whom NaQ helps: NLQ only against NaQ with fine-tuning, by template, by how often the object
# was asked for in training, by length and place of the window; with bootstrap intervals.
#
#   bash experiments/breakdowns.sh --devices 0,1,2,3 --feature egovlp
#   bash experiments/breakdowns.sh --small
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

prepare_data "$FEATURE"
SEED=1
step "NLQ only"
train_on_nlq "$RUNS/nlq_only"
step "NaQ stage 1"
train_on_naq "$RUNS/stage_1"
step "NaQ stage 2"
fine_tune "$RUNS/tuned" "$RUNS/stage_1"
step "Predictions"
only="$(predicted "$RUNS/nlq_only")"
tuned="$(predicted "$RUNS/tuned")"
step "By group"
program analyse_predictions --ground_truth_json "$DATA/$VAL_ANNOTATIONS" \
  --train_annotations "$DATA/$TRAIN_ANNOTATIONS" --plots "$RUNS/breakdowns" \
  --predictions "NLQ only=$only" "NaQ + fine-tuning=$tuned"
