#!/usr/bin/env bash
# What jitter of narration windows gains: none, scaled, scaled and moved, by several factors.
#
#   bash experiments/jitter.sh --devices 0,1,2,3 --feature egovlp
#   bash experiments/jitter.sh --small --seeds 3
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

prepare_data "$FEATURE"
# jittered NAME FACTOR OPTION...
jittered() {
  step "$1 (seed $SEED of $SEEDS)"
  local run="$RUNS/seed$SEED/${1// /_}"
  FACTOR="$2" train_on_naq "$run" "${@:3}"
  row "$1" "$run"
}
for ((SEED = 1; SEED <= SEEDS; SEED++)); do
  jittered "no jitter" 1.0
  jittered "scaled up to 2.5" 2.5 --no-nar_translate
  jittered "scaled up to 2.5 and moved" 2.5
  jittered "scaled up to 5 and moved" 5.0
done
show "Validation split, stage 1, by the jitter of narration windows"
