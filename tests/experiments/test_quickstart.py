"""The quickstart, dry: everything runs, and the table has all its rows."""

import pytest

from tests.simulated import refuse, succeed


@pytest.mark.parametrize(
    "model",
    [
        pytest.param("vslnet", marks=pytest.mark.slow),
        pytest.param("reler", marks=[pytest.mark.slow, pytest.mark.long]),
        pytest.param("groundnlq", marks=[pytest.mark.slow, pytest.mark.long]),
    ],
)
def test_dry_run(tmp_path, model):
    said = succeed(
        "experiments/quickstart.sh", "--dry", "--model", model, "--folder", tmp_path / "run"
    )
    assert "queries predicted, written to" in said
    table = said[said.index("Result on the validation split") :]
    for name in ("NLQ only", "NaQ stage 1, zero-shot", "NaQ stage 1, joint", "NaQ + fine-tuning"):
        (row,) = [line for line in table.splitlines() if line.startswith(f"| {name} ")]
        assert " of " in row  # queries evaluated of those there are
    assert list((tmp_path / "run" / model).rglob("*test*.json"))
    assert "acceptable" in said
    assert "NaQ + fine-tuning" in (tmp_path / "run" / model / "predictions.html").read_text()


def test_wrong_use():
    assert "--seeds is 'many'" in refuse("experiments/quickstart.sh", "--seeds", "many")
    line = refuse("experiments/quickstart.sh", "--model", "bert")
    assert "give vslnet, reler or groundnlq" in line
    assert "unknown option" in refuse("experiments/quickstart.sh", "--fast")
    assert "needs a value" in refuse("experiments/quickstart.sh", "--seeds")
