"""The table of training recipes is the one in the documentation, and scripts are told by it."""

import pytest

from tests.simulated import ROOT
from utils.base.stages import NAQ, SCRATCH, STAGES, TUNING, shell_variables

WORDS = {NAQ: "NaQ", TUNING: "fine-tuning", SCRATCH: "NLQ only"}
SCRIPTS = {NAQ: "train_naq.sh", TUNING: "finetune.sh", SCRATCH: "train_scratch_nlq.sh"}


@pytest.mark.parametrize(
    ("model", "stage"), [(model, stage) for model in STAGES for stage in STAGES[model]]
)
def test_recipes_are_documented_and_told_to_scripts(model, stage):
    epochs, batch, rate, warmup = STAGES[model][stage]
    script, decimals = SCRIPTS[stage], f"{rate:.9f}".rstrip("0")
    row = f"| {model}, {WORDS[stage]} | `{script}` | {batch} | {epochs} | {warmup:g} | {decimals} |"
    assert row in (ROOT / "experiments" / "README.md").read_text()
    assert f"describe_stage {model} {stage}\n" in (ROOT / model / "scripts" / script).read_text()
    said = dict(line.split("=") for line in shell_variables(model, stage).splitlines())
    assert (int(said["EPOCHS"]), int(said["BATCH_SIZE"])) == (epochs, batch)
    assert (float(said["RATE"]), float(said["WARMUP"])) == (rate, warmup)
    assert float(said["WARMUP_PROPORTION"]) == pytest.approx(warmup / epochs)
