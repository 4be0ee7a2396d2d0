#!/usr/bin/env bash
# TACoS, with and without NaQ made of Ego4D narrations.
#
#   bash experiments/tacos.sh --devices 0,1,2,3 --feature slowfast
TASK=tacos
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

prepare_data "$FEATURE"
with_and_without_naq TACoS "$RUNS"
show "TACoS, validation split"
