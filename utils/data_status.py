"""What a task needs under the data root, what of it is there, and the commands that get the rest.

    python utils/data_status.py --task nlq --data_root data --features egovlp clip

Nothing is opened beyond what tells which clips there are; `check_data.py` looks into the files.
"""

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from terminaltables import AsciiTable

from utils.base.errors import UserError, run_program, warn
from utils.base.files import read_json
from utils.base.options import ArgumentParser
from utils.base.tables import show_size
from utils.base.tasks import FEATURES, SPLITS, TASKS, Task, clip_sources
from utils.data.annotations import iter_clips, iter_queries, read_annotations
from utils.features.files import FeatureFolder, find_features

NAQ_SETS = (
    "ego4d --output_directory=DIR --datasets naq_datasets --version {version}, then unzip "
    "DIR/{version}/baselines/naq_datasets.zip in the checkout"
)
PAGES = read_json(Path(__file__).parent / "download" / "feature_manifest.json")["pages"]


class Need(NamedTuple):
    """Files that belong together, and how to get them."""

    what: str  # path under the data root, as the table shows it
    purpose: str
    files: list[Path]
    step: str  # command, or words where there is none; files may share one
    then: str = ""  # command that follows it for these files


class Clips(NamedTuple):
    """Clips that need features."""

    uids: set[str]
    all_known: bool  # otherwise the files that name the others are not there

    def counted(self, there: set[str]) -> str:
        """How many have features, in words."""
        known = "" if self.all_known else " known so far"
        return f"{len(there & self.uids)} of {len(self.uids)}{known}"


class Place:
    """A task's files under a data root, and the commands that make them."""

    def __init__(self, root: Path, name: str):
        self.root = root
        self.task: Task = TASKS[name]
        self.version = self.task.version
        self.kind = name.removesuffix("_v2")
        self.clip_sources = clip_sources(self.version)

    def needs(self) -> list[Need]:
        """All but features, in the order in which they can be got."""
        root, own = self.root, self.task.annotations
        needs = [
            self._annotations(own[split], "training" if split == "train" else split)
            for split in SPLITS
        ]
        needs += [self._annotations(f, "NaQ") for f in self.clip_sources if f not in own.values()]
        egoclip = (
            f"put EgoClip's egoclip.csv into {root}: {PAGES['EgoClip narrations (egoclip.csv)']} "
            "(Ego4D's own narrations are not in this form)"
        )
        needs.append(Need("egoclip.csv", "NaQ", [root / "egoclip.csv"], egoclip))
        needs.append(self._prepared(self.task.dataset, own["train"], "training, val, test"))
        union = self.task.naq_annotations
        create = (
            f"python utils/create_naq_dataset.py --type {self.kind} --em_version {self.version}"
        )
        ready = (
            ""
            if self.kind == "tacos"
            else f"  # or ready-made: {NAQ_SETS.format(version=self.version)}"
        )
        create += f" --data_root {_quoted(root)}{ready}"
        needs.append(Need(union, "NaQ", [root / union], create))
        needs.append(self._prepared(self.task.naq_dataset, union, "NaQ"))
        return needs

    def _annotations(self, file: str, purpose: str) -> Need:
        path = self.root / file
        if file.startswith("tacos"):
            step = (
                f"python utils/convert_tacos.py --input_dir FOLDER --data_root {_quoted(self.root)}"
            )
            page = PAGES["TACoS annotations reformatted for this"]
            note = f"  # FOLDER: the public TACoS {{train,val,test}}.json; or fetch all: {page}"
            return Need(file, purpose, [path], step + note)
        folder = self.root / "ego4d"
        step = f"ego4d --output_directory={_quoted(folder)} --version {self.version}"
        fetched = folder / self.version / "annotations" / file.replace("_v2", "")
        copy = f"cp {_quoted(fetched)} {_quoted(path)}"
        return Need(file, purpose, [path], f"{step} --datasets annotations", copy)

    def _prepared(self, dataset: str, train: str, purpose: str) -> Need:
        inputs = self.task.annotations | {"train": train}
        splits = " ".join(
            f"--input_{split}_split {_quoted(self.root / inputs[split])}" for split in SPLITS
        )
        folder = self.root / "dataset" / dataset
        return Need(
            f"dataset/{dataset}/",
            purpose,
            [folder / f"{split}.json" for split in SPLITS],
            f"python utils/prepare_ego4d_dataset.py {splits} --output_save_path {_quoted(folder)}",
        )

    def clips(self) -> Clips:
        """Clips with queries, of all splits."""
        return self._clips_of(self.task.dataset, self.task.annotations.values(), queried=True)

    def naq_clips(self) -> Clips:
        """Clips that NaQ trains on; before it is prepared, all those that narrations may be in."""
        return self._clips_of(self.task.naq_dataset, self.clip_sources, queried=False)

    def _clips_of(self, dataset: str, sources: Iterable[str], queried: bool) -> Clips:
        prepared = [self.root / "dataset" / dataset / f"{split}.json" for split in SPLITS]
        if all(file.is_file() for file in prepared):
            return Clips(set().union(*(_read_object(file) for file in prepared)), True)
        files = [self.root / source for source in sources]
        there = [file for file in files if file.is_file()]
        uids: set[str] = set()
        for content in map(read_annotations, there):
            if queried:
                uids |= {query.clip_uid for query in iter_queries(content)}
            else:
                uids |= {clip.clip_uid for _, clip in iter_clips(content)}
        return Clips(uids, len(there) == len(files))


def feature_row(root: Path, name: str, clips: Clips, naq: Clips) -> tuple[str, str, bool]:
    """What is there of a feature (in words), its size, and whether every clip wanted has it.

    Args:
        clips: those with queries.
        naq: those that NaQ trains on.
    """
    folder = root / "features" / name
    if not folder.is_dir() and not folder.with_name(f"{name}.h5").is_file():
        return "missing", "", False
    wanted = sorted(clips.uids | naq.uids)
    try:
        files = find_features(root, name, wanted)
    except UserError as fault:
        if wanted:
            warn(str(fault))
        return (f"clips 0 of {len(wanted)}" if wanted else "there; clips unknown"), "", False
    there = {files.clip_uids[clip] for clip in files.there}
    if isinstance(files, FeatureFolder):
        size = sum(stamp[1] if stamp else 0 for _, stamp in files.stamps())
    else:
        size = files.place.stat().st_size
    counts = f"clips {clips.counted(there)}"
    if naq.uids:
        counts += f", NaQ {naq.counted(there)}"
    return counts, show_size(size), len(there) == len(wanted)


def show(needs: list[Need], features: dict[str, tuple[str, str, bool]], root: Path) -> None:
    """Print the table, then the steps that get what is missing, each once."""
    steps: dict[str, list[str]] = {}  # step -> the commands that follow it
    rows = [["file", "for", "state", "size", "step"]]
    for need in needs:
        found = [file for file in need.files if file.is_file()]
        size = show_size(sum(file.stat().st_size for file in found)) if found else ""
        state, number = "there", ""
        if len(found) < len(need.files):
            state = f"{len(found)} of {len(need.files)} files" if found else "missing"
            steps.setdefault(need.step, []).append(need.then)
            number = str(list(steps).index(need.step) + 1)
        rows.append([need.what, need.purpose, state, size, number])
    lacking = [name for name, (_, _, whole) in features.items() if not whole]
    fetch = (
        f"python utils/download_features.py --feature_types {' '.join(map(_quoted, lacking))} "
        f"--data_root {_quoted(root)}"
    )
    if lacking:
        steps[fetch] = []
    for name, (state, size, whole) in features.items():
        rows.append([f"features/{name}", "all", state, size, "" if whole else str(len(steps))])
    table = AsciiTable(rows)
    table.justify_columns = {3: "right", 4: "right"}
    print(table.table)
    for number, (step, following) in enumerate(steps.items(), 1):
        print(f"\n{number}. {step}", *filter(None, following), sep="\n   ")
    if not steps:
        print("nothing is missing")
    print()
    for models in ("pretrained models of the paper", "NaQ++ VSLNet", "NaQ++ ReLER"):
        print(f"{models}: {PAGES[models]}")


def _read_object(file: Path) -> dict:
    content = read_json(file)
    if not isinstance(content, dict):
        raise UserError(f"{file}: must be an object of clips, as prepare_ego4d_dataset.py makes it")
    return content


def _quoted(path: str | Path) -> str:
    return shlex.quote(str(path))


def main(arguments: list[str] | None = None) -> None:
    """Look and print."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=tuple(TASKS), default="nlq", help="benchmark")
    parser.add_argument("--data_root", default="data", metavar="DIR", help="where the files lie")
    parser.add_argument(
        "--features", nargs="+", default=list(FEATURES), metavar="NAME", help="features wanted"
    )
    options = parser.parse_args(arguments)
    root = Path(options.data_root)
    place = Place(root, options.task)
    clips, naq = place.clips(), place.naq_clips()
    features = {name: feature_row(root, name, clips, naq) for name in options.features}
    show(place.needs(), features, root)


if __name__ == "__main__":
    run_program(main)
