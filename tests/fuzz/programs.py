"""What reads the fuzzed data root: programs with their arguments, as called by `ends_well`."""

from pathlib import Path

from tests.fuzz import models, project
from tests.utils.training import toy_training
from tests.utils.training.toy_training import Options
from utils import (
    check_data,
    compare_runs,
    convert_tacos,
    create_naq_dataset,
    download_features,
    ensemble_predictions,
    evaluate_ego4d_nlq,
    prepare_ego4d_dataset,
    prepare_features,
    simulate_dataset,
    subsample_clips,
    validate_submission,
)
from utils.data.records import read_records
from utils.data.records import subsample as keep_clips
from VSLNet.words import build_vocabulary


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


def vslnet_words(root: Path) -> tuple:
    return models.vslnet, *models.words_arguments(root)


def read_vectors(root: Path) -> tuple:
    file = root / "features" / "glove.840B.4d.txt"
    return lambda _: build_vocabulary(["where is the cup?"], file, 4), ""


def pack(root: Path) -> tuple:
    return prepare_features.main, "--data_root", root, "--features", "egovlp"


def manifest(root: Path) -> tuple:
    """The part of `download_features.py` that needs no net."""
    return lambda files: download_features.choose(None, Path(*files), []), root / "manifest.json"


def few_clips(root: Path) -> tuple:
    """What `--scaling_subsample_clips` does."""
    records = read_records(root / "dataset" / "nlq_official_v1" / "train.json")
    return lambda files: keep_clips(records, *files), root / "clips.json"


def toy(root: Path) -> tuple:
    """A training run that is continued."""
    return lambda folder: toy_training.train(Options(*folder)), project.toy_folder(root)


def compare(root: Path) -> tuple:
    return compare_runs.main, f"a={project.toy_folder(root)}"
