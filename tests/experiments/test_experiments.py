"""The experiments, dry: a tiny world, one epoch, every step of each of them, with each model."""

import pytest

from tests.simulated import ROOT, refuse, succeed

# What must be in the output: rows of the table, or lines.
EXPERIMENTS = {
    "few_shot": ["| with NaQ, 0 %", "| with NaQ, 100 %", "| NLQ only, 10 %"],
    "narrations": ["| narrations of 10 % of the clips", "| narrations of 100 % of the clips"],
    "jitter": ["| no jitter", "| scaled up to 2.5 ", "| scaled up to 2.5 and moved"],
    "nlq_v1": ["| slowfast, NLQ only", "| internvideo, NaQ + fine-tuning"],
    "tacos": ["| TACoS only", "| NaQ + fine-tuning"],
    "challenge_2023": ["| NaQ stage 1", "| NaQ + fine-tuning"],
    "breakdowns": ["NLQ only", "NaQ + fine-tuning"],
    "corrections": ["half_row - all corrections", "no_nearest - all corrections"],
    "long_video": ["| oracle", "Per cent, IoU=0.3"],
    "nms": ["NMS 0.7 - as published", "R@5 IoU=0.3"],
    "label_times": ["== Result on the validation split", "says how many miss the window"],
}
# Files that must be there afterwards.
FILES = {
    "challenge_2023": ["MODEL/**/*test*.json"],
    "breakdowns": ["MODEL/breakdowns/*"],
    "label_times": ["MODEL/seed1/tuned/**/*.t7", "MODEL-labels-published/seed1/tuned/**/*.t7"],
}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("model", ["vslnet", "reler", "groundnlq"])
@pytest.mark.parametrize("name", sorted(EXPERIMENTS))
def test_an_experiment_runs_dry(tmp_path, name, model):
    if name == "corrections" and model != "groundnlq":
        pytest.skip("of GroundNLQ's published code")
    printed = succeed(f"experiments/{name}.sh", "--dry", "--model", model, "--folder", tmp_path)
    for words in EXPERIMENTS[name]:
        assert words in printed, words
    for pattern in FILES.get(name, []):
        assert list(tmp_path.glob(pattern.replace("MODEL", model))), pattern


SCRIPTS = {path.stem for path in (ROOT / "experiments").glob("*.sh")} - {"setup"}  # sourced


def test_every_experiment_has_a_dry_run():
    assert {*EXPERIMENTS, "quickstart"} == SCRIPTS


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_help_fits_a_screen(script):
    printed = succeed(f"experiments/{script}.sh", "--help")
    assert len(printed.splitlines()) < 40
    assert f"experiments/{script}.sh" in printed


def test_wrong_use_is_one_line():
    assert "unknown task 'ego'" in refuse("experiments/tacos.sh", "--task", "ego")
    assert "unknown option '--fast'" in refuse("experiments/jitter.sh", "--fast")
    assert "--seeds is 'many'" in refuse("experiments/quickstart.sh", "--seeds", "many")
    line = refuse("experiments/quickstart.sh", "--model", "bert")
    assert "give vslnet, reler or groundnlq" in line
    assert "needs a value" in refuse("experiments/quickstart.sh", "--seeds")


def check(printed, runs):
    """Everything ran, and the table has all its rows."""
    assert "queries predicted, written to" in printed and "acceptable" in printed
    table = printed[printed.index("Result on the validation split") :]
    for name in ("NLQ only", "NaQ stage 1, zero-shot", "NaQ stage 1, joint", "NaQ + fine-tuning"):
        (row,) = [line for line in table.splitlines() if line.startswith(f"| {name} ")]
        assert " of " in row  # queries evaluated of those there are
    assert list(runs.rglob("*test*.json"))
    assert "NaQ + fine-tuning" in (runs / "predictions.html").read_text()


@pytest.mark.slow
def test_the_quickstart_runs_dry(quickstart):
    check((quickstart / "printed.txt").read_text(), quickstart / "vslnet")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["reler", pytest.param("groundnlq", marks=pytest.mark.long)])
def test_the_quickstart_runs_dry_with_the_other_models(tmp_path, model):
    command = ("experiments/quickstart.sh", "--dry", "--model", model, "--folder", tmp_path)
    check(succeed(*command), tmp_path / model)
