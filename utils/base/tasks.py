"""The table of tasks and features: names, files, widths, units; used by programs and scripts."""

from dataclasses import dataclass

from utils.base.errors import UserError

FRAME_RATE = 30.0  # frames per second of the canonical Ego4D videos
STRIDE = 16  # frames between feature rows
ROWS_PER_SECOND = FRAME_RATE / STRIDE  # 1.875

SPLITS = ("train", "val", "test")
ENDINGS = {"v1": ".json", "v2": "_v2.json"}  # of annotation files, by version


@dataclass(frozen=True)
class Task:
    """A benchmark's files under the data root, and VSLNet's units of its clips."""

    benchmark: str
    version: str  # of the annotations
    units: int  # VSLNet's max_pos_len
    test: str = "test"  # in the name of the test split's annotations

    @property
    def dataset(self) -> str:
        """Prepared data set: data/dataset/<dataset>/{train,val,test}.json."""
        return f"{self.benchmark}_official_{self.version}"

    @property
    def naq_dataset(self) -> str:
        """Prepared data set joined with narrations."""
        return f"{self.benchmark}_aug_naq_official_{self.version}"

    @property
    def annotations(self) -> dict[str, str]:
        """Annotation file of each split, with (or without) ground truth."""
        names = {"train": "train", "val": "val", "test": self.test}
        ending = ENDINGS[self.version]
        return {split: f"{self.benchmark}_{name}{ending}" for split, name in names.items()}

    @property
    def naq_annotations(self) -> str:
        """The annotation file that create_naq_dataset.py writes."""
        return f"{self.benchmark}_aug_naq_train{ENDINGS[self.version]}"


TASKS = {
    "nlq": Task("nlq", "v1", units=128, test="test_unannotated"),
    "nlq_v2": Task("nlq", "v2", units=128, test="test_unannotated"),
    "tacos": Task("tacos", "v1", units=512),
}

# Widths of the features of the published experiments; any other folder under features/ works too.
FEATURES = {"slowfast": 2304, "egovlp": 256, "internvideo": 2304, "clip": 512}


def clip_sources(version: str) -> list[str]:
    """The annotation files whose clips NaQ covers."""
    return [f"{benchmark}_train{ENDINGS[version]}" for benchmark in ("vq", "nlq", "moments")]


def shell_variables(name: str) -> str:
    """A task's row of the table as shell assignments."""
    if name not in TASKS:
        raise UserError(f"unknown task '{name}'; known tasks: {', '.join(TASKS)}")
    task = TASKS[name]
    values = {
        "DATASET": task.dataset,
        "NAQ_DATASET": task.naq_dataset,
        "UNITS": task.units,
        "NAQ_ANNOTATIONS": task.naq_annotations,
        **{f"{split.upper()}_ANNOTATIONS": file for split, file in task.annotations.items()},
    }
    return "\n".join(f"{variable}={value}" for variable, value in values.items())
