"""Check the files of a task under the data root: which are missing, and what is wrong.

    python utils/check_data.py --data_root data --task nlq --features egovlp clip

Prints a table (check, verdict, what, what to do), then the commands that get what is missing, in
the order in which they can be run. Exit code 0 if nothing is an error, else 2.
"""

import argparse
import shlex
import sys
from pathlib import Path

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

import numpy as np

from utils.base.errors import UserError, run_program
from utils.base.options import ArgumentParser, within
from utils.base.tables import Findings
from utils.base.tasks import FEATURES, SPLITS, TASKS, Task, clip_sources
from utils.data.annotations import read_clips
from utils.data.checks import (
    Splits,
    check_annotations,
    check_labels,
    check_narrations,
    check_shared,
    prepared_fault,
)
from utils.data.records import Records, read_records
from utils.download.manifest import read_manifest
from utils.features.checks import check_disk, check_features
from utils.features.mapped import feature_names

PAGES = read_manifest().pages
NAQ = "only NaQ needs it"


class Steps:
    """Commands that get or make the missing files of a task, numbered.

    Each method adds a command and returns a remedy such as `step 2`.
    """

    def __init__(self, root: Path, name: str):
        self.root, self.task = shlex.quote(str(root)), TASKS[name]
        self.kind, self.version = name.removesuffix("_v2"), self.task.version
        self.commands: dict[str, list[str]] = {}  # command -> the commands that follow it

    def annotations(self, file: str) -> str:
        """Annotations of Ego4D or TACoS."""
        if file.startswith("tacos"):
            page = PAGES["TACoS annotations reformatted for this"]
            return self._step(
                f"python utils/convert_tacos.py --input_dir FOLDER --data_root {self.root}  "
                f"# FOLDER: the public TACoS {{train,val,test}}.json; or fetch all: {page}"
            )
        folder, name = f"{self.root}/ego4d", file.replace("_v2", "")
        return self._step(
            f"ego4d --output_directory={folder} --version {self.version} --datasets annotations",
            f"cp {folder}/{self.version}/annotations/{name} {self.root}/{file}",
        )

    def narrations(self) -> str:
        """EgoClip's table."""
        page = PAGES["EgoClip narrations (egoclip.csv)"]
        return self._step(
            f"put EgoClip's egoclip.csv into {self.root}: {page}  # or give other narrations to "
            "create_naq_dataset.py: --narrations FILE --format FORMAT"
        )

    def naq(self) -> str:
        """The annotations joined with narrations."""
        note = (
            f"  # or ready-made: ego4d --output_directory=DIR --datasets naq_datasets --version "
            f"{self.version}, then unzip DIR/{self.version}/baselines/naq_datasets.zip in the "
            "checkout"
        )
        return self._step(
            f"python utils/create_naq_dataset.py --type {self.kind} --em_version {self.version} "
            f"--data_root {self.root}{'' if self.kind == 'tacos' else note}"
        )

    def prepared(self, dataset: str) -> str:
        """A prepared data set."""
        files = dict(self.task.annotations)
        if dataset == self.task.naq_dataset:
            files["train"] = self.task.naq_annotations
        inputs = " ".join(f"--input_{s}_split {self.root}/{file}" for s, file in files.items())
        return self._step(
            f"python utils/prepare_ego4d_dataset.py {inputs} "
            f"--output_save_path {self.root}/dataset/{dataset}"
        )

    def features(self, name: str) -> str:
        """Features of the published release; others must be extracted."""
        if name not in FEATURES:
            return "see docs/data.md for how features are made"
        return self._step(
            f"python utils/download_features.py --feature_types {name} --data_root {self.root}"
        )

    def _step(self, command: str, *following: str) -> str:
        self.commands.setdefault(command, []).extend(following)
        return f"step {list(self.commands).index(command) + 1}"

    def __str__(self) -> str:
        return "\n\n".join(
            "\n   ".join((f"{number}. {command}", *following))
            for number, (command, following) in enumerate(self.commands.items(), 1)
        )


def check_sources(root: Path, task: Task, steps: Steps, findings: Findings) -> Splits:
    """Check annotation files and the inputs of NaQ; returns the valid splits."""
    splits: Splits = {}
    for split, name in task.annotations.items():
        check, file = f"annotations, {split}", root / name
        if not file.is_file():
            is_prepared = (root / "dataset" / task.dataset / f"{split}.json").is_file()
            reason = "its prepared data set is there" if is_prepared else ""
            findings.missing(check, file, steps.annotations(name), reason)
        elif content := check_annotations(check, file, split, task.version, findings):
            splits[split] = content
    check_shared(splits, findings)

    check, sources = "clips for NaQ", [root / name for name in clip_sources(task.version)]
    for file in sources:
        if not file.is_file() and file.name not in task.annotations.values():
            findings.missing(check, file, steps.annotations(file.name), NAQ)
    clips = findings.tried(check, read_clips, [file for file in sources if file.is_file()])
    if clips:
        findings.ok(check, f"{sum(map(len, clips.values()))} clips of {len(clips)} videos")
    file = root / "egoclip.csv"
    if not file.is_file():
        findings.missing("narrations", file, steps.narrations(), NAQ)
    elif clips:
        check_narrations("narrations", file, sorted(clips), findings)
    return splits


def check_data_sets(
    root: Path, task: Task, steps: Steps, splits: Splits, units: int, findings: Findings
) -> dict[str, Records]:
    """Check prepared data sets; returns `<data set>/<split>` -> records."""
    records = {}
    if not (root / task.naq_annotations).is_file():
        findings.missing("annotations, NaQ", root / task.naq_annotations, steps.naq(), NAQ)
    for dataset, reason in ((task.dataset, ""), (task.naq_dataset, NAQ)):
        for split in SPLITS:
            check, file = f"{dataset}, {split}", root / "dataset" / dataset / f"{split}.json"
            if not file.is_file():
                findings.missing(check, file, steps.prepared(dataset), reason)
                continue
            columns = findings.tried(check, read_records, file)
            if columns is None:
                continue
            records[f"{dataset}/{split}"] = columns
            is_union = split == "train" and dataset == task.naq_dataset
            if fault := prepared_fault(columns, splits.get(split), is_union):
                findings.error(check, fault, steps.prepared(dataset))
                continue
            narrations = np.count_nonzero(columns.is_narration)
            what = f"{len(columns) - narrations} queries, {narrations} narrations"
            findings.ok(check, f"{what}, of {len(np.unique(columns.clip))} clips")
            if split == "train":
                check_labels(check, columns, units, findings)
    return records


def queried_clips(records: dict[str, Records], splits: Splits) -> dict[str, float]:
    """Seconds of clips with queries by uid, from prepared data sets or else annotation files."""
    clips: dict[str, float] = {}
    for columns in records.values():
        seconds = columns.clip_seconds.tolist()
        clips |= {columns.clip_uids[c]: seconds[c] for c in np.unique(columns.clip).tolist()}
    for split in splits.values() if not clips else ():
        clips |= {uid: clip.num_frames / clip.fps for uid, clip in split.prepared.items()}
    return clips


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_root", default="data", metavar="DIR", help="the folder to check")
    parser.add_argument("--task", default="nlq", choices=sorted(TASKS), help="what will be trained")
    parser.add_argument(
        "--features", nargs="+", metavar="NAME",
        help="features to check (default: those that are there, or else the published ones)",
    )  # fmt: skip
    parser.add_argument("--thorough", action="store_true", help="read every row of every feature")
    parser.add_argument("--cache_dir", metavar="DIR", help="derived stores (default: DIR/cache)")
    parser.add_argument(
        "--units", type=within(int, "[1, 10000]"), metavar="N",
        help="units of a clip, for labels (default: the task's)",
    )  # fmt: skip
    return parser.parse_args(arguments)


def check(options: argparse.Namespace) -> tuple[Findings, Steps]:
    """Run all checks; returns findings, and commands for missing files."""
    root, task, findings = Path(options.data_root), TASKS[options.task], Findings()
    if root.exists() and not root.is_dir():
        raise UserError(f"{root}: is not a folder; name the data root with --data_root")
    steps = Steps(root, options.task)
    splits = check_sources(root, task, steps, findings)
    units = options.units or task.units
    records = check_data_sets(root, task, steps, splits, units, findings)
    clips = queried_clips(records, splits)
    present = feature_names(root)
    feature_bytes = 0
    for name in options.features or present or FEATURES:
        title = f"features {name}"
        if name not in present:
            findings.missing(title, root / "features" / name, steps.features(name))
        elif not clips:
            findings.warning(title, "no clips are known to check them with")
        else:
            feature_bytes += check_features(
                title, root, name, clips, options.thorough, steps.features, findings
            )
    cache = Path(options.cache_dir) if options.cache_dir else root / "cache"
    check_disk(cache, records, feature_bytes, findings)
    return findings, steps


def main(arguments: list[str] | None = None) -> None:
    """Run all checks and print a report."""
    options = parse(arguments)
    findings, steps = check(options)
    print(findings.table(), steps, sep="\n\n")
    errors, warnings = findings.count("error"), findings.count("warning")
    if errors:
        raise UserError(
            f"{options.data_root}: see the table (errors: {errors}, warnings: {warnings})"
        )
    print(f"{options.data_root}: no errors (warnings: {warnings})")


if __name__ == "__main__":
    run_program(main)
