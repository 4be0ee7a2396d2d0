#!/usr/bin/env bash
# How well a model searches hours of video: both stages, then the validation clips' questions over these
# clips and others joined to 2, 8 and 24 hours. GroundNLQ is trained with moments that are absent, and without.
#
#   bash experiments/long_video.sh --model groundnlq --seeds 3
#   bash experiments/long_video.sh --folder experiments/runs/quickstart-small    # with the runs made there
WORLD=small # only a simulated world knows all moments that fit a question
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

prepare_data "$FEATURE"
hours=(2 8 24)
if [ "$WORLD" = tiny ]; then hours=(0.1 0.2); fi
searched=()
for ((SEED = 1; SEED <= SEEDS; SEED++)); do
  runs="$RUNS/seed$SEED"
  step "Stages 1 and 2 (seed $SEED of $SEEDS)"
  if [ "$MODEL" = groundnlq ]; then train_zero_shot "$runs"; fi
  train_jointly "$runs"
  fine_tune "$runs/tuned" "$runs/joint"
  searched+=("$PACKAGE, joint=$runs/joint" "$PACKAGE, fine-tuned=$runs/tuned")
  if [ "$MODEL" = groundnlq ]; then
    step "Stage 1, no moments absent (seed $SEED of $SEEDS)"
    train_zero_shot "$runs/present" --absent 0
    train_jointly "$runs/present" --absent 0
    searched+=("$PACKAGE, joint, no moments absent=$runs/present/joint")
  fi
done
step "Questions over hours of video"
program search_long_video "${searched[@]}" --data_root "$DATA" --hours "${hours[@]}"
