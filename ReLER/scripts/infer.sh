#!/usr/bin/env bash
# Predict SPLIT (val or test) with CKPT (a checkpoint file or a run folder): writes the challenge
# file under preds/ beside the checkpoint, and prints the score table where the split has ground
# truth. Without TASK (infer.sh DEVICES SPLIT FEAT CKPT) it is nlq_v2, as in the challenge.
# The file of the test split is checked as the challenge server would.
# Example: ReLER/scripts/infer.sh 0 nlq_v2 test internvideo runs/tuned

source "$(dirname "${BASH_SOURCE[0]}")/../../utils/entry.sh"
case "${2:-}" in
  val | test) set -- "$1" nlq_v2 "${@:2}" ;;
esac
arguments DEVICES TASK SPLIT FEAT CKPT -- "$@"
describe_task "$TASK"
choose_annotations "$SPLIT"

launch ReLER/main.py --mode "$SPLIT" --check_submission \
  --task "$DATASET" --fv "$FEAT" --resume "$CKPT" \
  --data_root "$DATA_ROOT" --eval_gt_json "$DATA_ROOT/$ANNOTATIONS"
