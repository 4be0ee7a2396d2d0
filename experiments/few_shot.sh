#!/usr/bin/env bash
# Zero- and few-shot: trained with the queries of 0, 10, 25, 35 or 100 % of the NLQ clips, with NaQ
# (stage 1) and without. Lists of clips are nested and drawn for each seed.
#
#   bash experiments/few_shot.sh --devices 0,1,2,3 --feature egovlp
#   bash experiments/few_shot.sh --small --seeds 3
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

prepare_data "$FEATURE"
curves=()
for ((SEED = 1; SEED <= SEEDS; SEED++)); do
  runs="$RUNS/seed$SEED"
  program subsample_clips --annotations "$DATA/$TRAIN_ANNOTATIONS" --shares 0 10 25 35 100 \
    --seed "$SEED" --output_dir "$FOLDER/subsets"
  for share in 0 10 25 35 100; do
    list="$FOLDER/subsets/${TRAIN_ANNOTATIONS%.json}_queries_${share}_percent_seed_$SEED.txt"
    step "$share % of the NLQ clips (seed $SEED of $SEEDS)"
    train_on_naq "$runs/naq_$share" --zeroshot_subsample_clips "$list"
    row "with NaQ, $share %" "$runs/naq_$share"
    curves+=("with NaQ:$share=$runs/naq_$share")
    if [ $share != 0 ]; then
      train_on_nlq "$runs/nlq_$share" --zeroshot_subsample_clips "$list"
      row "NLQ only, $share %" "$runs/nlq_$share"
      curves+=("NLQ only:$share=$runs/nlq_$share")
    fi
  done
done
show "Validation split, by the share of NLQ clips trained on"
program plot_curves --xlabel "NLQ clips trained on, %" --output "$RUNS/few_shot.svg" "${curves[@]}"
