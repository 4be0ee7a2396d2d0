"""The quickstart, dry: everything runs, and the table has all its rows."""

import pytest

from tests.simulated import succeed


def check(printed, runs):
    assert "queries predicted, written to" in printed and "acceptable" in printed
    table = printed[printed.index("Result on the validation split") :]
    for name in ("NLQ only", "NaQ stage 1, zero-shot", "NaQ stage 1, joint", "NaQ + fine-tuning"):
        (row,) = [line for line in table.splitlines() if line.startswith(f"| {name} ")]
        assert " of " in row  # queries evaluated of those there are
    assert list(runs.rglob("*test*.json"))
    assert "NaQ + fine-tuning" in (runs / "predictions.html").read_text()


@pytest.mark.slow
def test_dry_run(quickstart):
    check((quickstart / "printed.txt").read_text(), quickstart / "vslnet")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("model", ["reler", "groundnlq"])
def test_dry_run_of_the_other_models(tmp_path, model):
    command = ("experiments/quickstart.sh", "--dry", "--model", model, "--folder", tmp_path)
    check(succeed(*command), tmp_path / model)
