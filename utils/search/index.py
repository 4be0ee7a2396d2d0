"""An index of videos: their encoded clips, which do not depend on questions, stored and mapped.

    from utils.search import load_index
    index = load_index("my_index")
    answers = index.ask(["Where did I put the keys?"])
    index.paths[answers.videos[0, 0]], answers.windows[0, 0]    # which video, [start, end] seconds

The folder holds `run.json`, and of each video a .npy file, its encoded clips (C, V, D) in half
precision, and a .json file with the rest. That is written last and removed first: a killed process
leaves at most a .npy file without one, which the next process removes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

import numpy as np
from filelock import FileLock, Timeout
from msgspec import Struct

from utils.base.errors import UserError, named, warn
from utils.base.files import (
    atomic_write,
    check_output_folder,
    file_stamp,
    fingerprint,
    legible,
    read_json,
    write_json,
)
from utils.features.stores import map_array
from utils.features.tensors import resident
from utils.search import NMS_THRESHOLD, TOP
from utils.search.ranking import EncodedVideo, Ranking, rank
from utils.search.search import TrainedRun, load_run
from utils.training.checkpoints import checkpoint_hash, find_checkpoint

RUN_FILE = "run.json"
SAMPLES = 16  # of a file's content, in its fingerprint


class IndexedRun(Struct):
    """The run that an index was made with."""

    checkpoint: str  # absolute path of a file or folder, or name on the hub
    hash: str
    clip_seconds: float
    text_encoder: str | None = None
    image_encoders: list[str] | None = None

    def load(
        self,
        checkpoint: str | None = None,
        text_encoder: str | None = None,
        device: str = "auto",
        image_encoders: list[str] | None = None,
    ) -> TrainedRun:
        """Load the run with the same image encoders, from another place if given.

        Raises UserError if the run or an encoder differs from that of the index.
        """
        checkpoint = checkpoint or self.checkpoint
        if checkpoint_hash(find_checkpoint(checkpoint)) != self.hash:
            raise UserError(
                f"--checkpoint {checkpoint}: the index was made with another run, or before this "
                "one was trained further; name that run, or a new --index"
            )
        if image_encoders and list(map(_absolute, image_encoders)) != self.image_encoders:
            names = " ".join(self.image_encoders or ["the run's own"])
            raise UserError(f"--encoder: the index was made with {names}; make a new --index")
        encoder = text_encoder or self.text_encoder
        return load_run(checkpoint, encoder, self.clip_seconds, device, self.image_encoders)


class IndexedVideo(Struct):
    """A video of an index, without its clips."""

    path: str  # absolute and percent-encoded: a name may be invalid UTF-8
    fingerprint: str  # of the video's files
    seconds: float
    clip_seconds: float
    starts: list[float]  # of the clips in seconds


class VideoFiles(NamedTuple):
    """A video to index, or features without a video."""

    path: Path  # absolute; the first feature file if there is no video
    features: tuple[Path, ...] = ()  # a file for each feature that the model reads, or none

    def fingerprint(self) -> str:
        """A hash of sizes, times and samples of the files."""
        files = dict.fromkeys((self.path, *self.features))
        return fingerprint(*(file_stamp(file, SAMPLES) for file in files))


@dataclass(frozen=True)
class VideoIndex:
    """Encoded videos that can be asked any number of questions."""

    paths: list[Path]  # of the videos, or of features without a video
    videos: list[EncodedVideo]

    def ask(
        self, questions: list[str], top: int = TOP, nms_threshold: float = NMS_THRESHOLD
    ) -> Ranking:
        """The best `top` windows of all videos for each question."""
        return rank(self.videos, questions, top, nms_threshold)

    @property
    def score_name(self) -> str:
        return "score" if self.videos[0].calibration is None else "chance"

    @property
    def seconds(self) -> float:
        """Total length of the videos."""
        return sum(video.seconds for video in self.videos)


def load_index(
    folder: str | Path,
    checkpoint: str | None = None,
    text_encoder: str | None = None,
    device: str = "auto",
) -> VideoIndex:
    """Load the index in a folder and its run; warns of missing videos.

    Args:
        checkpoint: the run, if it has been moved.
        text_encoder: the run's text encoder, if it has been moved.

    Raises:
        UserError: no index in the folder, another run, or all videos are missing.
    """
    folder = Path(folder)
    if not (folder / RUN_FILE).is_file():
        raise UserError(f"{folder}: no index of videos; index_videos.py makes one")
    indexed_run, videos = read_json(folder / RUN_FILE, IndexedRun), _read_videos(folder)
    present = {path: video for path, video in videos.items() if path.exists()}
    if not present:
        raise UserError(f"{folder}: none of its {len(videos)} videos exists; index_videos.py adds")
    if missing := [legible(path.name) for path in videos if path not in present]:
        names = named(missing)
        warn(f"{folder}: {len(missing)} of {len(videos)} videos are gone: {names}; left out")
    run = indexed_run.load(checkpoint, text_encoder, device)
    return VideoIndex(list(present), [_encoded(run, *video) for video in present.values()])


class IndexWriter:
    """Adds videos to the index in a folder; see `writing`."""

    def __init__(self, folder: Path):
        self._folder = folder
        file = folder / RUN_FILE
        self.run = read_json(file, IndexedRun) if file.is_file() else None  # None: a new index
        self._videos = _read_videos(folder)
        for clips in folder.glob("*.npy"):
            if not clips.with_suffix(".json").is_file():  # left by a killed process
                clips.unlink()

    def begin(self, checkpoint: str, text_encoder: str | None, run: TrainedRun) -> None:
        """Store the run of a new index, loaded from `checkpoint`."""
        self.run = IndexedRun(
            _absolute(checkpoint),
            checkpoint_hash(find_checkpoint(checkpoint)),
            run.clip_seconds,
            text_encoder and _absolute(text_encoder),
            run.image_encoders and list(map(_absolute, run.image_encoders)),
        )
        write_json(self._folder / RUN_FILE, self.run)

    def missing(self, sources: Iterable[VideoFiles]) -> list[VideoFiles]:
        """The videos that are not in the index yet, or have changed."""
        videos = self._videos.items()
        indexed = {path: video.fingerprint for path, (clips, video) in videos if clips.is_file()}
        return [s for s in sources if indexed.get(s.path) != s.fingerprint()]

    def add(self, source: VideoFiles, video: EncodedVideo) -> None:
        """Store an encoded video in place of what the index holds of its files."""
        for path in (source.path, *source.features):
            self._remove(path)
        path = quote(os.fsencode(source.path))
        times = video.seconds, video.clip_seconds, video.starts.tolist()
        indexed = IndexedVideo(path, source.fingerprint(), *times)
        clips = self._folder / f"{fingerprint(path)}.npy"
        with atomic_write(clips) as file:
            np.save(file, video.clips.half().cpu().numpy())
        write_json(clips.with_suffix(".json"), indexed)
        self._videos[source.path] = clips, indexed

    def drop_gone(self) -> list[Path]:
        """Drop missing videos whose folder exists; returns all missing videos."""
        missing = [path for path in self._videos if not path.exists()]
        for path in missing:
            if path.parent.is_dir():
                self._remove(path)
        return missing

    def count(self) -> tuple[int, float]:
        """Number of videos in the index, and their total length in seconds."""
        return len(self._videos), sum(video.seconds for _, video in self._videos.values())

    def _remove(self, path: Path) -> None:
        if path in self._videos:
            clips, _ = self._videos.pop(path)
            clips.with_suffix(".json").unlink()
            clips.unlink(missing_ok=True)


@contextmanager
def writing(folder: Path) -> Iterator[IndexWriter]:
    """Open or create the index in a folder, locked for this process.

    Raises UserError if another process is writing it.
    """
    check_output_folder("--index", folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield IndexWriter(folder)
    except Timeout:
        raise UserError(f"{folder}: another process is writing this index") from None


def _absolute(name: str) -> str:
    """The absolute path of a file or folder; other names are returned as they are."""
    return str(Path(name).absolute()) if Path(name).exists() else name


def _read_videos(folder: Path) -> dict[Path, tuple[Path, IndexedVideo]]:
    """The videos of an index in the order of their paths, and the files of their clips."""
    videos = {}
    for file in folder.glob("*.json"):
        if file.name != RUN_FILE:
            video = read_json(file, IndexedVideo)
            path = Path(os.fsdecode(unquote_to_bytes(video.path)))
            videos[path] = file.with_suffix(".npy"), video
    return dict(sorted(videos.items()))


def _encoded(run: TrainedRun, file: Path, video: IndexedVideo) -> EncodedVideo:
    try:
        clips = resident(map_array(file))
    except (OSError, ValueError, EOFError):
        raise UserError(f"{file}: missing or damaged; delete it and run index_videos.py") from None
    times = np.array(video.starts), video.clip_seconds, video.seconds
    return EncodedVideo(run.model, clips, *times, run.calibration)
