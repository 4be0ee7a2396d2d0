"""The table of tasks and features: names, files, widths, units. It exists once; scripts ask it."""

from dataclasses import dataclass

from utils.base.errors import UserError

FRAME_RATE = 30.0  # frames per second of the canonical Ego4D videos
STRIDE = 16  # frames between feature rows
ROWS_PER_SECOND = FRAME_RATE / STRIDE  # 1.875

SPLITS = ("train", "val", "test")
ENDINGS = {"v1": ".json", "v2": "_v2.json"}  # of annotation files, by version


@dataclass(frozen=True)
class Task:
    """Where a benchmark's files lie under the data root, and how VSLNet sees its clips."""

    dataset: str  # prepared data set: data/dataset/<dataset>/{train,val,test}.json
    naq_dataset: str  # the same joined with narrations
    annotations: dict[str, str]  # split -> annotation file with (or without) ground truth
    naq_annotations: str  # the annotation file that create_naq_dataset writes
    units: int  # VSLNet's max_pos_len

    @property
    def version(self) -> str:
        """Of the annotations."""
        return "v2" if self.annotations["train"].endswith(ENDINGS["v2"]) else "v1"


TASKS = {
    "nlq": Task(
        dataset="nlq_official_v1",
        naq_dataset="nlq_aug_naq_official_v1",
        annotations={
            "train": "nlq_train.json",
            "val": "nlq_val.json",
            "test": "nlq_test_unannotated.json",
        },
        naq_annotations="nlq_aug_naq_train.json",
        units=128,
    ),
    "nlq_v2": Task(
        dataset="nlq_official_v2",
        naq_dataset="nlq_aug_naq_official_v2",
        annotations={
            "train": "nlq_train_v2.json",
            "val": "nlq_val_v2.json",
            "test": "nlq_test_unannotated_v2.json",
        },
        naq_annotations="nlq_aug_naq_train_v2.json",
        units=128,
    ),
    "tacos": Task(
        dataset="tacos_official_v1",
        naq_dataset="tacos_aug_naq_official_v1",
        annotations={
            "train": "tacos_train.json",
            "val": "tacos_val.json",
            "test": "tacos_test.json",
        },
        naq_annotations="tacos_aug_naq_train.json",
        units=512,
    ),
}

# Widths of the features of the published experiments; any other folder under features/ works too.
FEATURES = {"slowfast": 2304, "egovlp": 256, "internvideo": 2304, "clip": 512}


def clip_sources(version: str) -> list[str]:
    """The annotation files that say which clips NaQ covers."""
    return [f"{benchmark}_train{ENDINGS[version]}" for benchmark in ("vq", "nlq", "moments")]


def shell_variables(name: str) -> str:
    """A task's row of the table as shell assignments, for the entry points."""
    if name not in TASKS:
        raise UserError(f"unknown task '{name}'; known tasks: {', '.join(TASKS)}")
    task = TASKS[name]
    return "\n".join(
        [
            f"DATASET={task.dataset}",
            f"NAQ_DATASET={task.naq_dataset}",
            f"UNITS={task.units}",
            f"TRAIN_ANNOTATIONS={task.annotations['train']}",
            f"NAQ_ANNOTATIONS={task.naq_annotations}",
            f"VAL_ANNOTATIONS={task.annotations['val']}",
            f"TEST_ANNOTATIONS={task.annotations['test']}",
        ]
    )
