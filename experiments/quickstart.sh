#!/usr/bin/env bash
# The paper's claim on a laptop: a simulated Ego4D, the whole VSLNet method, one table.
#
#   bash experiments/quickstart.sh              # one seed, a few minutes on two CPU cores
#   bash experiments/quickstart.sh --seeds 3    # mean and spread over three seeds
#   bash experiments/quickstart.sh --dry        # a tiny world and a few steps: does it all run?
#
# Everything is written under experiments/runs (or --folder DIR); a run that was
# interrupted is continued by the same command.
source "$(dirname "${BASH_SOURCE[0]}")/../utils/environment.sh"

SEEDS=1
PRESET=small
FOLDER=""
while [ $# -gt 0 ]; do
  case "$1" in
    --seeds) SEEDS="${2:?--seeds needs a number}" && shift 2 ;;
    --dry) PRESET=tiny && shift ;;
    --folder) FOLDER="${2:?--folder needs a folder}" && shift 2 ;;
    -h | --help) sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0" && exit 0 ;;
    *) echo "error: unknown option '$1'; see $0 --help" >&2 && exit 2 ;;
  esac
done
[[ "$SEEDS" =~ ^[1-9][0-9]*$ ]] || { echo "error: --seeds is '$SEEDS', give a number" >&2; exit 2; }
FOLDER="${FOLDER:-$CODE_ROOT/experiments/runs/quickstart-$PRESET}"
export NAQ_ROOT="$FOLDER"
DATA="$FOLDER/data"
FEAT=egovlp
SCRIPTS="$CODE_ROOT/VSLNet/scripts"
SECONDS=0

step() { printf '\n\033[1m== %s\033[0m  (%d:%02d)\n' "$1" $((SECONDS / 60)) $((SECONDS % 60)); }
program() { "$PYTHON" "$CODE_ROOT/utils/$1.py" "${@:2}"; }

step "1. A small simulated Ego4D"
if [ ! -f "$DATA/simulation.json" ]; then
  program simulate_dataset --data_root "$DATA" --preset "$PRESET" --features "$FEAT"
fi

step "2. Narrations become queries (NaQ)"
program create_naq_dataset --type nlq --em_version v1 --data_root "$DATA"
prepare() {
  program prepare_ego4d_dataset --output_save_path "$DATA/dataset/$2" \
    --input_train_split "$DATA/$1" --input_val_split "$DATA/nlq_val.json" \
    --input_test_split "$DATA/nlq_test_unannotated.json"
}
prepare nlq_train.json nlq_official_v1
prepare nlq_aug_naq_train.json nlq_aug_naq_official_v1
: >"$DATA/no_clips.txt" # no NLQ training queries at all: zero-shot

# The sizes of a laptop: narrower, shorter, fewer steps than the published recipe.
SMALL=(--text_encoder minilm)
runs=()
for ((seed = 1; seed <= SEEDS; seed++)); do
  RUNS="$FOLDER/seed$seed"
  options=("${SMALL[@]}" --seed "$seed")
  step "3. NLQ only (seed $seed of $SEEDS)"
  bash "$SCRIPTS/train_scratch_nlq.sh" cpu nlq "$FEAT" "$RUNS/nlq_only" 0.001 "${options[@]}"
  step "4. NaQ stage 1, zero-shot: narrations alone (seed $seed of $SEEDS)"
  bash "$SCRIPTS/train_naq.sh" cpu nlq "$FEAT" "$RUNS/zero_shot" 2.5 "${options[@]}" \
    --zeroshot_subsample_clips "$DATA/no_clips.txt"
  step "5. NaQ stage 1, joint: narrations and NLQ (seed $seed of $SEEDS)"
  bash "$SCRIPTS/train_naq.sh" cpu nlq "$FEAT" "$RUNS/joint" 2.5 "${options[@]}"
  step "6. NaQ stage 2: fine-tuning on NLQ (seed $seed of $SEEDS)"
  bash "$SCRIPTS/finetune.sh" cpu nlq "$FEAT" "$RUNS/tuned" 0.0002 "$RUNS/joint" "${options[@]}"
  runs+=(
    "NLQ only=$RUNS/nlq_only" "NaQ zero-shot=$RUNS/zero_shot"
    "NaQ joint (stage 1)=$RUNS/joint" "NaQ + fine-tuning=$RUNS/tuned"
  )
done

step "7. Challenge file for the test split"
bash "$SCRIPTS/infer.sh" cpu nlq test "$FEAT" "$FOLDER/seed1/tuned" "${SMALL[@]}"

step "Result on the validation split of the simulated world, in per cent"
program compare_runs "${runs[@]}"
