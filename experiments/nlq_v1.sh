#!/usr/bin/env bash
# Ego4D NLQ v1: three features, without NaQ, with NaQ (stage 1), and fine-tuned (stage 2).
#
#   bash experiments/nlq_v1.sh --devices 0,1,2,3                 # VSLNet
#   bash experiments/nlq_v1.sh --devices 0,1,2,3 --model reler
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

features=(slowfast egovlp internvideo)
prepare_data "${features[@]}"
for FEATURE in "${features[@]}"; do
  with_and_without_naq NLQ "$RUNS/$FEATURE" "$FEATURE"
done
show "NLQ v1, validation split"
