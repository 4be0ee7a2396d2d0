# Sourced by the experiments: their options, data and common steps.
#
# Options of every experiment:
#   --model NAME           vslnet, reler or groundnlq (vslnet)
#   --seeds N              mean and spread over N seeds (1)
#   --devices LIST         0,1,2,3 or cpu (0; cpu in a simulated world)
#   --feature NAME         a folder under data/features (egovlp)
#   --task NAME            nlq, nlq_v2 or tacos (nlq)
#   --label_times HOW      exact or published (exact)
#   --small                run in the quickstart's simulated world: minutes on a laptop
#   --dry                  run one epoch in a tiny simulated world, to see that everything runs
#   --folder DIR           where runs (and simulated data) are written (under experiments/runs)
# Without --small or --dry it uses the real data in data/ and the published sizes. The same command
# continues an experiment that was interrupted.
source "$(dirname "${BASH_SOURCE[0]}")/../utils/environment.sh"
source "$CODE_ROOT/utils/entry.sh"

EXPERIMENT="${EXPERIMENT:-$(basename "$0" .sh)}" # names the folder of its runs
MODEL=vslnet
SEEDS=1
DEVICES=""
FEATURE=egovlp
TASK="${TASK:-nlq}"
LABEL_TIMES=exact
WORLD="${WORLD:-real}" # real, small or tiny
FOLDER=""
FACTOR=2.5 # of the narration jitter
while [ $# -gt 0 ]; do
  case "$1" in
    --model | --seeds | --devices | --feature | --task | --label_times | --folder)
      [ $# -gt 1 ] || fail "$1 needs a value; see $0 --help"
      case "$1" in
        --model) MODEL="$2" ;;
        --seeds) SEEDS="$2" ;;
        --devices) DEVICES="$2" ;;
        --feature) FEATURE="$2" ;;
        --task) TASK="$2" ;;
        --label_times) LABEL_TIMES="$2" ;;
        --folder) FOLDER="$2" ;;
      esac
      shift 2
      ;;
    --small) WORLD=small && shift ;;
    --dry) WORLD=tiny && shift ;;
    -h | --help)
      sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0"
      echo
      sed -n '/^# Options of every/,/^[^#]/{s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    *) fail "unknown option '$1'; see $0 --help" ;;
  esac
done
[[ "$SEEDS" =~ ^[1-9][0-9]*$ ]] || fail "--seeds is '$SEEDS', give a number of 1 or more"
describe_task "$TASK"

# Learning rates and, in a simulated world, model sizes for a laptop: narrower, shorter and with fewer
# steps than the published recipes.
SIZES=() STAGE_1=() JOINT=() NLQ_ONLY=() TUNING=()
case "$MODEL" in
  vslnet) PACKAGE=VSLNet ;;
  reler) PACKAGE=ReLER ;;
  groundnlq) PACKAGE=GroundNLQ FACTOR=10 ;;
  *) fail "--model is '$MODEL'; give vslnet, reler or groundnlq" ;;
esac
SCRIPTS="$PACKAGE/scripts"
describe_stage $PACKAGE scratch
NLQ_ONLY_LR="$RATE"
describe_stage $PACKAGE tuning
TUNING_LR="$RATE"
if [ "$WORLD" != real ] && [ "$MODEL" = vslnet ]; then
  SIZES=(--text_encoder minilm --max_pos_len 64 --dim 64 --num_heads 2 --drop_rate 0)
  STAGE_1=(--epochs 6 --batch_size 32 --init_lr 0.004 --warmup_proportion 0.1 --eval_period 100)
  NLQ_ONLY=(--epochs 30 --warmup_proportion 0.1 --eval_period 60)
  NLQ_ONLY_LR=0.004
  TUNING=(--epochs 10 --warmup_proportion 0.1 --drop_rate 0.2 --eval_period 25)
  TUNING_LR=0.0002
elif [ "$WORLD" != real ] && [ "$MODEL" = groundnlq ]; then
  # Embeddings of words, Muon and absent moments: without each of these so few steps match no
  # objects (README.md). A step on stretches of clips takes a quarter of the time; whole clips teach
  # to choose among more moments.
  FACTOR=5
  SIZES=(--text_encoder minilm@0 --dim 64 --num_heads 2 --arch 1 1 4 0 2 --drop_path 0)
  STAGE_1=(
    --optimizer muon --epochs 9 --warmup_epochs 0.4 --batch_size 32 --lr 0.0015 --nar_jitter any
    --crop_ratio 0.16 0.21 --absent 0.5 --eval_period 480
  )
  JOINT=(--epochs 3 --crop_ratio 1 1 --eval_period 160)
  NLQ_ONLY=(--optimizer muon --epochs 12 --warmup_epochs 1 --batch_size 16 --eval_period 100)
  NLQ_ONLY_LR=0.001
  TUNING=(
    --optimizer muon --epochs 4 --warmup_epochs 0.5 --batch_size 16 --absent 0.5 --eval_period 25
  )
  TUNING_LR=0.0005
elif [ "$WORLD" != real ]; then
  SIZES=(
    --text_encoder minilm --max_v_l 64 --hidden_dim 64 --bi_num_attention_heads 4
    --v_intermediate_size 128 --intermediate_size 128 --conditioned_span_pred_num_heads 2
    --pre_norm
  )
  # No dropout, as for VSLNet: so few steps do not overfit.
  for option in {cross_,}input_dropout {v_,}{attention_probs,hidden}_dropout_prob \
    conditioned_span_pred_drop_rate; do
    SIZES+=("--$option" 0)
  done
  STAGE_1=(--epochs 6 --batch_size 32 --lr 0.002 --eval_period 160)
  NLQ_ONLY=(--epochs 30 --eval_period 60)
  NLQ_ONLY_LR=0.002
  TUNING=(--epochs 10 --eval_period 25)
  TUNING_LR=0.0002
fi
if [ "$WORLD" = tiny ]; then
  for stage in STAGE_1 JOINT NLQ_ONLY TUNING; do declare -n list="$stage" && list+=(--epochs 1); done
fi
if [ "$WORLD" = real ]; then
  DEVICES="${DEVICES:-0}"
  FOLDER="${FOLDER:-$CODE_ROOT/experiments/runs/$EXPERIMENT}"
else
  DEVICES="${DEVICES:-cpu}"
  FOLDER="${FOLDER:-$CODE_ROOT/experiments/runs/$EXPERIMENT-$WORLD}"
  NAQ_ROOT="$FOLDER"
fi
export NAQ_ROOT
DATA="$NAQ_ROOT/data"
RUNS="$FOLDER/$MODEL"
if [ "$LABEL_TIMES" != exact ]; then RUNS+="-labels-$LABEL_TIMES"; fi
SECONDS=0

# step TEXT: prints a heading with the elapsed time.
step() { printf '\n== %s  (%d:%02d)\n' "$1" $((SECONDS / 60)) $((SECONDS % 60)); }
program() { "$PYTHON" "$CODE_ROOT/utils/$1.py" "${@:2}"; }
# script NAME ARGUMENT...: runs one of the model's scripts on DEVICES and TASK.
script() { bash "$CODE_ROOT/$SCRIPTS/$1.sh" "$DEVICES" "$TASK" "${@:2}"; }

# prepare_data FEATURE...: makes the simulated world (unless real), NaQ and the prepared data sets.
prepare_data() {
  if [ "$WORLD" != real ]; then
    step "A $WORLD simulated Ego4D"
    if [ ! -f "$DATA/simulation.json" ]; then
      program simulate_dataset --data_root "$DATA" --preset "$WORLD" --features "$@" clip
    fi
    if [ "$TASK" = tacos ]; then # the simulated questions stand in for those of TACoS
      for split in train val; do cp "$DATA/nlq_$split.json" "$DATA/tacos_$split.json"; done
      cp "$DATA/nlq_test_unannotated.json" "$DATA/tacos_test.json"
    fi
  fi
  local version=v1 kind=nlq
  if [ "$TASK" = nlq_v2 ]; then version=v2; fi
  if [ "$TASK" = tacos ]; then kind=tacos; fi
  if [ ! -f "$DATA/dataset/$NAQ_DATASET/test.json" ]; then
    step "Narrations become queries (NaQ)"
    program create_naq_dataset --type $kind --em_version $version --data_root "$DATA"
    _prepare_split "$TRAIN_ANNOTATIONS" "$DATASET"
    _prepare_split "$NAQ_ANNOTATIONS" "$NAQ_DATASET"
  fi
}
_prepare_split() {
  program prepare_ego4d_dataset --output_save_path "$DATA/dataset/$2" \
    --input_train_split "$DATA/$1" --input_val_split "$DATA/$VAL_ANNOTATIONS" \
    --input_test_split "$DATA/$TEST_ANNOTATIONS"
}

# train_on_nlq RUN OPTION..., train_on_naq RUN OPTION..., fine_tune RUN STAGE_1_RUN OPTION...: train
# with SEED.
train_on_nlq() {
  script train_scratch_nlq "$FEATURE" "$1" "$NLQ_ONLY_LR" "${SIZES[@]}" "${NLQ_ONLY[@]}" \
    --seed "$SEED" --label_times "$LABEL_TIMES" "${@:2}"
}
train_on_naq() {
  script train_naq "$FEATURE" "$1" "$FACTOR" "${SIZES[@]}" "${STAGE_1[@]}" --seed "$SEED" \
    --label_times "$LABEL_TIMES" "${@:2}"
}
fine_tune() {
  script finetune "$FEATURE" "$1" "$TUNING_LR" "$2" "${SIZES[@]}" "${TUNING[@]}" \
    --seed "$SEED" --label_times "$LABEL_TIMES" "${@:3}"
}

# predict_val RUN FILE OPTION...: writes the best checkpoint's predictions of val to FILE.
predict_val() {
  script infer val "$FEATURE" "$1" "${SIZES[@]}" --output "$2" "${@:3}"
}

# train_zero_shot RUNS OPTION..., train_jointly RUNS OPTION...: stage 1 in RUNS/zero_shot on
# narrations alone, and in RUNS/joint on narrations and NLQ. GroundNLQ's joint training begins with
# the weights of the one on narrations.
train_zero_shot() {
  train_on_naq "$1/zero_shot" --zeroshot_subsample_clips /dev/null "${@:2}"
}
train_jointly() {
  local begin=()
  if [ "$MODEL" = groundnlq ]; then begin=(--init_from "$1/zero_shot"); fi
  train_on_naq "$1/joint" "${begin[@]}" "${JOINT[@]}" "${@:2}"
}

# keep LABEL RUN OPTION...: writes predictions of val to `val, LABEL.json` in RUN, for the tables that
# `compare_kept TITLE OPTION...` prints.
FILES=()
keep() {
  local file="$2/val, $1.json"
  predict_val "$2" "$file" "${@:3}"
  FILES+=("$1=$file")
}
compare_kept() {
  step "$1"
  program analyse_predictions --ground_truth_json "$DATA/$VAL_ANNOTATIONS" \
    --predictions "${FILES[@]}" "${@:2}"
}

# row LABEL RUN: adds a row to the table that `show TITLE` prints.
TABLE=()
row() { TABLE+=("$1=$2"); }
show() {
  step "$1"
  if [ "$WORLD" != real ]; then echo "(simulated world: says nothing about real video)"; fi
  program compare_runs "${TABLE[@]}"
}

# with_and_without_naq NAME RUNS [LABEL]: for each seed trains on the queries of NAME, with NaQ
# (stage 1) and fine-tuned (stage 2), in folders under RUNS; adds a row each, starting with LABEL.
with_and_without_naq() {
  local label="${3:+$3, }" runs
  for ((SEED = 1; SEED <= SEEDS; SEED++)); do
    runs="$2/seed$SEED"
    step "${3:-$1} (seed $SEED of $SEEDS)"
    train_on_nlq "$runs/${1,,}_only"
    train_on_naq "$runs/stage_1"
    fine_tune "$runs/tuned" "$runs/stage_1"
    row "$label$1 only" "$runs/${1,,}_only"
    row "${label}NaQ stage 1" "$runs/stage_1"
    row "${label}NaQ + fine-tuning" "$runs/tuned"
  done
}
