#!/usr/bin/env bash
# How many narrations are enough: stage 1 with the narrations of 10, 25, 50 or 100 % of the clips.
#
#   bash experiments/narrations.sh --devices 0,1,2,3 --feature egovlp
#   bash experiments/narrations.sh --small --seeds 3
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

prepare_data "$FEATURE"
curves=()
for ((SEED = 1; SEED <= SEEDS; SEED++)); do
  runs="$RUNS/seed$SEED"
  program subsample_clips --annotations "$DATA/$NAQ_ANNOTATIONS" --kind narrations \
    --shares 10 25 50 100 --seed "$SEED" --output_dir "$FOLDER/subsets"
  for share in 10 25 50 100; do
    list="$FOLDER/subsets/${NAQ_ANNOTATIONS%.json}_narrations_${share}_percent_seed_$SEED.txt"
    step "Narrations of $share % of the clips (seed $SEED of $SEEDS)"
    train_on_naq "$runs/$share" --scaling_subsample_clips "$list"
    row "narrations of $share % of the clips" "$runs/$share"
    curves+=("with NaQ:$share=$runs/$share")
  done
done
show "Validation split, by the share of clips whose narrations were used"
program plot_curves --xlabel "clips with narrations, %" --output "$RUNS/narrations.svg" \
  "${curves[@]}"
