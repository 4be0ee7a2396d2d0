#!/usr/bin/env bash
# Labels from exact times against labels from truncated times, as published: how many are wrong,
# and what a model learns from them, in the quickstart's simulated world.
#
#   bash experiments/label_times.sh [--seeds N] [--model vslnet|reler]
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
set -euo pipefail
if [ "${1:-}" = "--help" ] || [ "${1:-}" = "-h" ]; then
  sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0"
  exit 0
fi

for times in exact published; do
  bash "$HERE/quickstart.sh" "$@" --label_times "$times"
done
source "$HERE/../utils/environment.sh"
printf '\nLabels of the joint training split that miss the exact window:\n'
"$PYTHON" "$CODE_ROOT/utils/compare_labels.py" --units 64 \
  "$CODE_ROOT/experiments/runs/quickstart-small/data/dataset/nlq_aug_naq_official_v1/train.json"
