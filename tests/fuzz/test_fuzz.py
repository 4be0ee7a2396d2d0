"""Every program reads mutated inputs and either does its work or says in one line what is wrong.

A few of each kind, the same in every run.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz import models, mutations, project
from utils import (
    check_data,
    compare_labels,
    convert_tacos,
    create_naq_dataset,
    ensemble_predictions,
    evaluate_ego4d_nlq,
    prepare_ego4d_dataset,
    simulate_dataset,
    subsample_clips,
    validate_submission,
)


class Kind(NamedTuple):
    """One kind of input: a file of the data root, how it is harmed, and who reads it."""

    file: Callable[[Path], Path]
    harmed: Callable[[Path], st.SearchStrategy[bytes]]
    programs: list[Callable[[Path], tuple]]
    inputs: int


def prepare(root: Path) -> tuple:
    return prepare_ego4d_dataset.main, *(
        word
        for split, name in (("train", "train"), ("val", "val"), ("test", "test_unannotated"))
        for word in (f"--input_{split}_split", root / f"nlq_{name}.json")
    ), "--output_save_path", root / "out"  # fmt: skip


def create(root: Path) -> tuple:
    return create_naq_dataset.main, "--type", "nlq", "--em_version", "v1", "--data_root", root


def evaluate(root: Path) -> tuple:
    return (
        evaluate_ego4d_nlq.main, "--ground_truth_json", root / "nlq_val.json",
        "--model_prediction_json", root / "challenge.json", "--breakdown",
        "--train_annotations", root / "nlq_train.json",
    )  # fmt: skip


def validate(root: Path) -> tuple:
    files = ("--annotations", root / "nlq_val.json", "--predictions", root / "challenge.json")
    return validate_submission.main, *files, "--output", root / "mended.json"


def ensemble(root: Path) -> tuple:
    files = root / "challenge.json", root / "challenge_2.json"
    return ensemble_predictions.main, "--predictions", *files, "--output", root / "joined.json"


def convert(root: Path) -> tuple:
    return convert_tacos.main, "--input_dir", root / "tacos", "--data_root", root / "out"


def labels(root: Path) -> tuple:
    return compare_labels.main, root / "dataset" / "nlq_official_v1" / "train.json"


def subsample(root: Path) -> tuple:
    file = root / "nlq_train.json"
    return (
        subsample_clips.main, "--annotations", file, "--shares", "50", "--output_dir", root / "out"
    )  # fmt: skip


def simulate(root: Path) -> tuple:
    file = root / "nlq_train.json"
    return (
        simulate_dataset.main, "--data_root", root / "stand_ins", "--annotations", file,
        "--features", "egovlp",
    )  # fmt: skip


def check(root: Path) -> tuple:
    return check_data.main, "--data_root", root, "--thorough"


def vslnet(root: Path) -> tuple:
    return models.vslnet, *models.vslnet_arguments(root)


def reler(root: Path) -> tuple:
    return models.reler, *models.reler_arguments(root)


def json_of(content: Any) -> Callable[[Path], st.SearchStrategy[bytes]]:
    return lambda root: mutations.json_files(content)


KINDS = {
    "train annotations": Kind(
        lambda root: root / "nlq_train.json", json_of(project.annotations("train")),
        [prepare, create, subsample, simulate, check], 20,
    ),
    "val annotations": Kind(
        lambda root: root / "nlq_val.json", json_of(project.annotations("val")),
        [prepare, evaluate, validate], 20,
    ),
    "prepared train": Kind(
        lambda root: root / "dataset" / "nlq_official_v1" / "train.json",
        json_of(project.prepared("train")), [labels, check], 20,
    ),
    "prepared val": Kind(
        lambda root: root / "dataset" / "nlq_official_v1" / "val.json",
        json_of(project.prepared("val")), [vslnet, reler], 6,
    ),
    "narrations": Kind(
        lambda root: root / "egoclip.csv", lambda root: mutations.tables(project.NARRATIONS),
        [create], 15,
    ),
    "tensors": Kind(
        lambda root: root / "features" / "egovlp" / "v1.pt",
        lambda root: mutations.tensor_files(project.ROWS, project.WIDTH), [check], 15,
    ),
    "tensors in a model": Kind(
        lambda root: root / "features" / "egovlp" / "v1.pt",
        lambda root: mutations.tensor_files(project.ROWS, project.WIDTH), [vslnet, reler], 6,
    ),
    "feature shapes": Kind(
        lambda root: root / "features" / "egovlp" / "feature_shapes.json",
        json_of({"v1": 60, "v2": 60, "t1": 60}), [check], 6,
    ),
    "feature card": Kind(
        lambda root: root / "features" / "egovlp" / "feature_card.json",
        json_of({"frame_rate": 30, "stride": 16, "width": 6}), [check], 6,
    ),
    "packed features": Kind(
        lambda root: root / "features" / "egovlp.h5",
        lambda root: mutations.packed_files(
            sum(project.UIDS.values(), []), project.ROWS, project.WIDTH  # noqa: RUF017
        ), [check], 15,
    ),
    "VSLNet checkpoint": Kind(
        models.vslnet_file, lambda root: mutations.state_files(models.vslnet_state(root)),
        [vslnet], 8,
    ),
    "ReLER checkpoint": Kind(
        models.reler_file, lambda root: mutations.run_files(models.reler_content(root)),
        [reler], 8,
    ),
    "challenge file": Kind(
        lambda root: root / "challenge.json", json_of(project.challenge()),
        [evaluate, validate, ensemble], 20,
    ),
    "TACoS": Kind(
        lambda root: root / "tacos" / "val.json", json_of(project.tacos()), [convert], 10,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory, request):
    """The data root, and an empty working folder in which no canary may appear."""
    folder = tmp_path_factory.mktemp("fuzz")
    work = folder / "work"
    work.mkdir()
    patch = pytest.MonkeyPatch()
    request.addfinalizer(patch.undo)
    patch.chdir(work)
    models.write_runs(project.make(folder / "data"))
    return folder / "data"


def fuzz(root: Path, kind: Kind, inputs: int) -> None:
    """Give the programs that many harmed inputs, then what was there before."""
    file = kind.file(root)
    whole = file.read_bytes() if file.exists() else None

    @settings(
        max_examples=inputs, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck), phases=[Phase.generate],
        report_multiple_bugs=False,
    )  # fmt: skip
    @given(content=kind.harmed(root))
    def try_one(content: bytes) -> None:
        file.write_bytes(content)
        for program in kind.programs:
            shutil.rmtree(root / "cache", ignore_errors=True)
            main, *arguments = program(root)
            project.ends_well(main, *arguments)
        assert not Path("canary").exists()

    try:
        try_one()
    finally:
        if whole is None:
            file.unlink()
        else:
            file.write_bytes(whole)


@pytest.mark.parametrize("name", KINDS)
def test_mutated_inputs(root, name):
    fuzz(root, KINDS[name], KINDS[name].inputs)


def test_there_are_many():
    assert sum(kind.inputs for kind in KINDS.values()) >= 150


def test_unharmed_inputs_are_read(root):
    """Else programs could refuse everything, and the rest would show nothing."""
    for program in {program for kind in KINDS.values() for program in kind.programs}:
        main, *arguments = program(root)
        assert project.ends_well(main, *arguments) is None, program.__name__
