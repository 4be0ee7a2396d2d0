"""Programs start quickly, say what they do on one screen, and how to get the packages they need."""

import sys
from dataclasses import fields

import pytest

import GroundNLQ.options
import ReLER.options
import VSLNet.options
from tests.simulated import ROOT, refuse, run
from tests.utils.viewer.viewer_sample import write_predictions_of, write_split
from utils.base.options import parse_options

LINES, COLUMNS = 40, 100  # of a screen
MODELS = {
    "VSLNet": VSLNet.options.Options,
    "ReLER": ReLER.options.Options,
    "GroundNLQ": GroundNLQ.options.Options,
}
PROGRAMS = sorted(
    str(file.relative_to(ROOT)) for file in [*ROOT.glob("utils/[!_]*.py"), *ROOT.glob("*/main.py")]
)
SLOW = {"torch", "transformers", "polars", "matplotlib", "tensorboard", "nltk", "av"}


def run_noting_imports(*command):
    """Run a program; returns how it ended and the slow packages that it imported."""
    done = run(sys.executable, "-X", "importtime", ROOT / command[0], *command[1:])
    lines = (line.split("|") for line in done.stderr.splitlines() if line.startswith("import time"))
    return done, {parts[-1].strip() for parts in lines} & SLOW


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_fits_a_screen_and_imports_nothing_slow(program, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    done, imported = run_noting_imports(program, "--help")
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and lines[0].startswith("usage: ") and imported == set()
    assert len(lines) <= LINES and max(map(len, lines)) <= COLUMNS


def test_programs_that_only_read_json_do_without_torch(tmp_path):
    split = write_split(tmp_path, 10)
    file = write_predictions_of(split, tmp_path / "preds.json", 3.0)
    output = ("--output", tmp_path / "output.html")
    for program, *options in (
        ("evaluate_ego4d_nlq", "--ground_truth_json", split, "--model_prediction_json", file),
        ("validate_submission", "--annotations", split, "--predictions", file),
        ("view_predictions", "--annotations", split, "--predictions", file, *output),
        ("analyse_predictions", "--ground_truth_json", split, "--predictions", f"A={file}"),
        ("ensemble_predictions", "--predictions", file, file, *output),
    ):
        done, imported = run_noting_imports(f"utils/{program}.py", *options)
        assert (program, done.returncode, imported) == (program, 0, set()), done.stdout


@pytest.mark.parametrize("program", PROGRAMS)
def test_without_its_packages_a_program_says_how_to_get_them(program):
    line = refuse(sys.executable, "-I", "-S", ROOT / program, "--help")
    assert "lacks torch, numpy, transformers, ...; run: " in line
    # The second where the checkout has its own environment.
    assert line.endswith((f"bash {ROOT}/utils/environment.sh", f"{ROOT}/.venv/bin/activate"))


def test_without_its_packages_a_script_says_how_to_get_them(tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    arguments = ("cpu", "nlq", "egovlp", tmp_path / "runs", "0.001")
    line = refuse("VSLNet/scripts/train_scratch_nlq.sh", *arguments, PYTHON=str(python))
    assert "lacks torch, numpy, transformers, ...; run: " in line


def test_the_environment_that_is_there_is_named(monkeypatch, tmp_path):
    from utils.base import environment

    monkeypatch.setattr(environment, "CHECKOUT", tmp_path)
    (tmp_path / ".venv").mkdir()
    assert environment.how_to_enter() == f"source {tmp_path}/.venv/bin/activate"
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))  # it lacks packages itself
    assert environment.how_to_enter() == f"bash {tmp_path}/utils/environment.sh"


@pytest.mark.parametrize("model", MODELS)
def test_no_option_of_a_model_is_left_out_of_all_help(model, capsys):
    with pytest.raises(SystemExit) as end:
        parse_options(MODELS[model], model, ["--help_all"])
    printed = capsys.readouterr().out
    assert end.value.code == 0
    missing = [f.name for f in fields(MODELS[model]) if f"\n  --{f.name}" not in printed]
    assert not missing


def test_wrong_arguments_of_scripts_are_one_line(tmp_path):
    def scratch(*arguments):
        return refuse("VSLNet/scripts/train_scratch_nlq.sh", *arguments)

    assert "unknown task 'ego5d'" in scratch("cpu", "ego5d", "egovlp", tmp_path, "0.001")
    assert "LR is missing" in scratch("cpu", "nlq", "egovlp", tmp_path)
    assert "DEVICES" in refuse("VSLNet/scripts/infer.sh", "gpu", "nlq", "val", "egovlp", tmp_path)
    assert "SPLIT" in refuse("VSLNet/scripts/infer.sh", "cpu", "nlq", "dev", "egovlp", tmp_path)
