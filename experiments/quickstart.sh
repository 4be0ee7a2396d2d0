#!/usr/bin/env bash
# The paper's claim on a laptop: a simulated Ego4D, the whole method, one table.
#
#   bash experiments/quickstart.sh                  # VSLNet, a few minutes on two CPU cores
#   bash experiments/quickstart.sh --seeds 3        # mean and spread over three seeds
#   bash experiments/quickstart.sh --model reler    # the other model
#   bash experiments/quickstart.sh --label_times published
#   bash experiments/quickstart.sh --dry            # a tiny world, one epoch: does it all run?
#
# Everything is written under experiments/runs (or --folder DIR); the same command continues a run
# that was interrupted.
source "$(dirname "${BASH_SOURCE[0]}")/../utils/environment.sh"

SEEDS=1
MODEL=vslnet
LABEL_TIMES=exact
PRESET=small
FOLDER=""
fail() { echo "error: $*" >&2 && exit 2; }
while [ $# -gt 0 ]; do
  case "$1" in
    --seeds | --model | --label_times | --folder)
      [ $# -gt 1 ] || fail "$1 needs a value; see $0 --help"
      case "$1" in
        --seeds) SEEDS="$2" ;;
        --model) MODEL="$2" ;;
        --label_times) LABEL_TIMES="$2" ;;
        --folder) FOLDER="$2" ;;
      esac
      shift 2
      ;;
    --dry) PRESET=tiny && shift ;;
    -h | --help) sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0" && exit 0 ;;
    *) fail "unknown option '$1'; see $0 --help" ;;
  esac
done
[[ "$SEEDS" =~ ^[1-9][0-9]*$ ]] || fail "--seeds is '$SEEDS', give a number"

# The sizes of a laptop: narrower, shorter, fewer steps than the published recipes.
case "$MODEL" in
  vslnet)
    SCRIPTS="VSLNet/scripts"
    SMALL=(--text_encoder minilm --max_pos_len 64 --dim 64 --num_heads 2 --drop_rate 0)
    STAGE_1=(--epochs 6 --batch_size 32 --init_lr 0.004 --warmup_proportion 0.1 --eval_period 100)
    NLQ_ONLY=(--epochs 30 --warmup_proportion 0.1 --eval_period 60)
    NLQ_ONLY_LR=0.004
    TUNING=(--epochs 10 --warmup_proportion 0.1 --drop_rate 0.2 --eval_period 25)
    TUNING_LR=0.0002
    ;;
  reler)
    SCRIPTS="ReLER/scripts"
    SMALL=(
      --text_encoder minilm --max_v_l 64 --hidden_dim 64 --bi_num_attention_heads 4
      --v_intermediate_size 128 --intermediate_size 128 --conditioned_span_pred_num_heads 2
      --pre_norm
    )
    # No dropout, as for VSLNet: so few steps do not overfit.
    for place in {cross_,}input_dropout {v_,}{attention_probs,hidden}_dropout_prob \
      conditioned_span_pred_drop_rate; do
      SMALL+=("--$place" 0)
    done
    STAGE_1=(--epochs 6 --batch_size 32 --lr 0.002 --eval_period 160)
    NLQ_ONLY=(--epochs 30 --eval_period 60)
    NLQ_ONLY_LR=0.002
    TUNING=(--epochs 10 --eval_period 25)
    TUNING_LR=0.0002
    ;;
  *) fail "--model is '$MODEL'; give vslnet or reler" ;;
esac
if [ "$PRESET" = tiny ]; then
  for stage in STAGE_1 NLQ_ONLY TUNING; do declare -n list="$stage" && list+=(--epochs 1); done
fi

FOLDER="${FOLDER:-$CODE_ROOT/experiments/runs/quickstart-$PRESET}"
export NAQ_ROOT="$FOLDER"
DATA="$FOLDER/data"
RUNS="$FOLDER/$MODEL"
if [ "$LABEL_TIMES" != exact ]; then RUNS+="-labels-$LABEL_TIMES"; fi
SECONDS=0
step() { printf '\n== %s  (%d:%02d)\n' "$1" $((SECONDS / 60)) $((SECONDS % 60)); }
program() { "$PYTHON" "$CODE_ROOT/utils/$1.py" "${@:2}"; }
script() { bash "$CODE_ROOT/$SCRIPTS/$1.sh" cpu nlq "${@:2}"; }

step "A small simulated Ego4D"
if [ ! -f "$DATA/simulation.json" ]; then
  program simulate_dataset --data_root "$DATA" --preset "$PRESET" --features egovlp clip
fi

step "Narrations become queries (NaQ)"
program create_naq_dataset --type nlq --em_version v1 --data_root "$DATA"
prepare() {
  program prepare_ego4d_dataset --output_save_path "$DATA/dataset/$2" \
    --input_train_split "$DATA/$1" --input_val_split "$DATA/nlq_val.json" \
    --input_test_split "$DATA/nlq_test_unannotated.json"
}
prepare nlq_train.json nlq_official_v1
prepare nlq_aug_naq_train.json nlq_aug_naq_official_v1
: >"$DATA/no_clips.txt" # zero-shot: the NLQ queries of no clip

table=()
for ((seed = 1; seed <= SEEDS; seed++)); do
  runs="$RUNS/seed$seed"
  small=("${SMALL[@]}" --seed "$seed" --label_times "$LABEL_TIMES")
  step "NLQ only (seed $seed of $SEEDS)"
  script train_scratch_nlq egovlp "$runs/nlq_only" "$NLQ_ONLY_LR" "${small[@]}" "${NLQ_ONLY[@]}"
  step "NaQ stage 1, zero-shot: narrations alone (seed $seed of $SEEDS)"
  script train_naq egovlp "$runs/zero_shot" 2.5 "${small[@]}" "${STAGE_1[@]}" \
    --zeroshot_subsample_clips "$DATA/no_clips.txt"
  step "NaQ stage 1, joint: narrations and NLQ (seed $seed of $SEEDS)"
  script train_naq egovlp "$runs/joint" 2.5 "${small[@]}" "${STAGE_1[@]}"
  step "NaQ stage 2: fine-tuning on NLQ (seed $seed of $SEEDS)"
  script finetune egovlp "$runs/tuned" "$TUNING_LR" "$runs/joint" "${small[@]}" "${TUNING[@]}"
  table+=(
    "NLQ only=$runs/nlq_only" "NaQ stage 1, zero-shot=$runs/zero_shot"
    "NaQ stage 1, joint=$runs/joint" "NaQ + fine-tuning=$runs/tuned"
  )
done

step "Challenge file for the test split"
script infer test egovlp "$RUNS/seed1/tuned" "${SMALL[@]}"

step "Result on the validation split of the simulated world, in per cent"
program compare_runs "${table[@]}"
