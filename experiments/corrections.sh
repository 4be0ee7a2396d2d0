#!/usr/bin/env bash
# What each correction of GroundNLQ's published code changes: stage 1 with all of them, and with each by
# itself undone; those that only prediction knows of are undone in prediction alone.
#
#   bash experiments/corrections.sh --model groundnlq --devices 0,1,2,3 --feature internvideo
#   bash experiments/corrections.sh --model groundnlq --small --seeds 3
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

[ "$MODEL" = groundnlq ] || fail "only GroundNLQ has corrections; give --model groundnlq"
prepare_data "$FEATURE"
for ((SEED = 1; SEED <= SEEDS; SEED++)); do
  runs="$RUNS/seed$SEED"
  step "All corrections (seed $SEED of $SEEDS)"
  train_on_naq "$runs/joint"
  keep "all corrections" "$runs/joint"
  for name in half_row fixed_length; do keep "$name" "$runs/joint" --published "$name"; done
  for name in frames_per_row text_padding no_nearest; do
    step "Without $name (seed $SEED of $SEEDS)"
    train_on_naq "$runs/$name" --published "$name"
    keep "$name" "$runs/$name"
  done
done
compare_kept "Each undone by itself"
