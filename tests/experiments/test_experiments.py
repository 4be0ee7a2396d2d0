"""The experiments, dry: a tiny world, one epoch, every step of each of them."""

import pytest

from tests.simulated import ROOT, refuse, succeed

EXPERIMENTS = {
    "few_shot": ["with NaQ, 0 %", "with NaQ, 100 %", "NLQ only, 10 %"],
    "narrations": ["narrations of 10 % of the clips", "narrations of 100 % of the clips"],
    "jitter": ["no jitter", "scaled up to 2.5 ", "scaled up to 2.5 and moved"],
    "nlq_v1": ["slowfast, NLQ only", "internvideo, NaQ + fine-tuning"],
    "tacos": ["TACoS only", "NaQ + fine-tuning"],
    "challenge_2023": ["NaQ stage 1", "NaQ + fine-tuning"],
}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", sorted(EXPERIMENTS))
def test_dry_run(tmp_path, name):
    said = succeed(f"experiments/{name}.sh", "--dry", "--folder", tmp_path)
    for row in EXPERIMENTS[name]:
        assert any(line.startswith(f"| {row}") for line in said.splitlines()), row
    if name == "challenge_2023":
        assert list(tmp_path.rglob("*test*.json"))


@pytest.mark.slow
@pytest.mark.long
def test_dry_run_of_breakdowns(tmp_path):
    pytest.importorskip("matplotlib")
    said = succeed("experiments/breakdowns.sh", "--dry", "--folder", tmp_path)
    assert "NLQ only" in said and "NaQ + fine-tuning" in said
    assert list(tmp_path.glob("vslnet/breakdowns/*"))


@pytest.mark.slow
@pytest.mark.long
def test_dry_run_of_nms(tmp_path):
    said = succeed("experiments/nms.sh", "--dry", "--folder", tmp_path)
    assert "NMS 0.7 - as published" in said and "R@5 IoU=0.3" in said


@pytest.mark.slow
@pytest.mark.long
def test_dry_run_of_label_times(tmp_path):
    said = succeed("experiments/label_times.sh", "--dry", "--folder", tmp_path)
    assert said.count("== Result on the validation split") == 2
    assert "narrations" in said.split("miss the exact window:")[1]
    assert list(tmp_path.glob("vslnet/seed1/tuned/**/*.t7"))
    assert list(tmp_path.glob("vslnet-labels-published/seed1/tuned/**/*.t7"))


SCRIPTS = {path.name for path in (ROOT / "experiments").glob("*.sh")} - {"setup.sh"}  # sourced


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_help_fits_a_screen(script):
    said = succeed(f"experiments/{script}", "--help")
    assert len(said.splitlines()) < 40
    assert f"experiments/{script}" in said


def test_wrong_use():
    assert "unknown task 'ego'" in refuse("experiments/tacos.sh", "--task", "ego")
    assert "unknown option '--fast'" in refuse("experiments/jitter.sh", "--fast")
