"""An index of videos: their encoded clips, which do not depend on questions, stored and mapped.

    from utils.search import load_index
    index = load_index("my_index")
    answers = index.ask(["Where did I put the keys?"])
    index.paths[answers.videos[0, 0]], answers.windows[0, 0]    # which video, [start, end] seconds

The folder holds `index.sqlite`, with the run and a row per video, and `<number>.npy`, the encoded
clips (C, V, D) of a video in half precision. A row is committed after its file is complete: a
killed process leaves at most a file without a row, which the next one removes.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

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
    parse_json,
    to_json,
)
from utils.base.hub import is_on_hub
from utils.features.stores import map_array
from utils.features.tensors import resident
from utils.search import NMS_THRESHOLD, TOP
from utils.search.ranking import EncodedVideo, Ranking, rank
from utils.search.search import TrainedRun, load_run
from utils.training.checkpoints import checkpoint_hash, find_checkpoint

DATABASE = "index.sqlite"
SAMPLES = 16  # of a file's content, in its fingerprint
TABLES = """
CREATE TABLE IF NOT EXISTS run (description TEXT); -- JSON, as of IndexedRun
CREATE TABLE IF NOT EXISTS videos (
    number INTEGER PRIMARY KEY AUTOINCREMENT, -- numbers are not reused
    path BLOB UNIQUE, -- bytes: a name may be invalid UTF-8
    fingerprint TEXT, -- of the video's files
    seconds REAL,
    clip_seconds REAL,
    starts TEXT -- of the clips in seconds, JSON
);
"""


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
        if not is_on_hub(checkpoint) and not Path(checkpoint).exists():
            raise UserError(
                f"{checkpoint}: no such run; if the run of this index has been moved, say where "
                "with --checkpoint"
            )
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
    if not (folder / DATABASE).is_file():
        raise UserError(f"{folder}: no index of videos; index_videos.py makes one")
    with _opened(folder) as database:
        indexed_run = _read_run(folder, database)
        columns = "path, number, starts, clip_seconds, seconds"
        rows = database.execute(f"SELECT {columns} FROM videos ORDER BY path").fetchall()
    rows = [(Path(os.fsdecode(path)), *columns) for path, *columns in rows]
    present = [row for row in rows if row[0].exists()]
    missing = [legible(path.name) for path, *_ in rows if not path.exists()]
    if not present or indexed_run is None:
        raise UserError(f"{folder}: none of its {len(rows)} videos is there; index_videos.py adds")
    if missing:
        warn(f"{folder}: {len(missing)} of {len(rows)} videos are gone: {named(missing)}; left out")
    run = indexed_run.load(checkpoint, text_encoder, device)
    videos = [_stored_video(folder, run, *columns) for _, *columns in present]
    return VideoIndex([path for path, *_ in present], videos)


class IndexWriter:
    """Adds videos to an index; see `writing`."""

    def __init__(self, folder: Path, database: sqlite3.Connection):
        self._folder, self._database = folder, database
        database.executescript(TABLES)
        self.run = _read_run(folder, database)  # None: a new index
        numbers = {number for (number,) in database.execute("SELECT number FROM videos")}
        files = {_clips_file(folder, number) for number in numbers}
        for file in {*folder.glob("*.npy")} - files:  # left by a killed process
            file.unlink()

    def keep_run(self, checkpoint: str, text_encoder: str | None, run: TrainedRun) -> None:
        """Store where the run of the index lies, loaded from `checkpoint`."""
        self.run = IndexedRun(
            _absolute(checkpoint),
            checkpoint_hash(find_checkpoint(checkpoint)),
            run.clip_seconds,
            text_encoder and _absolute(text_encoder),
            run.image_encoders and list(map(_absolute, run.image_encoders)),
        )
        with self._database as database:
            database.execute("DELETE FROM run")
            database.execute("INSERT INTO run VALUES (?)", (to_json(self.run).decode(),))

    def missing(self, sources: Iterable[VideoFiles]) -> list[VideoFiles]:
        """The videos that are not in the index yet, or have changed."""
        rows = self._database.execute("SELECT path, fingerprint, number FROM videos").fetchall()
        indexed = {path: mark for path, mark, n in rows if _clips_file(self._folder, n).is_file()}
        return [s for s in sources if indexed.get(os.fsencode(s.path)) != s.fingerprint()]

    def add(self, source: VideoFiles, video: EncodedVideo) -> None:
        """Store an encoded video; replaces earlier rows of its files."""
        starts = json.dumps(video.starts.tolist())
        times = video.seconds, video.clip_seconds, starts
        with self._database as database:
            replaced = self._remove({source.path, *source.features})
            number = database.execute(
                "INSERT INTO videos (path, fingerprint, seconds, clip_seconds, starts) "
                "VALUES (?, ?, ?, ?, ?)",
                (os.fsencode(source.path), source.fingerprint(), *times),
            ).lastrowid
            with atomic_write(_clips_file(self._folder, number)) as file:
                np.save(file, video.clips.half().cpu().numpy())
        for file in replaced:
            file.unlink(missing_ok=True)

    def drop_gone(self) -> list[Path]:
        """Drop missing videos whose folder exists; returns all missing videos."""
        rows = self._database.execute("SELECT path FROM videos ORDER BY path").fetchall()
        paths = [Path(os.fsdecode(path)) for (path,) in rows]
        missing = [path for path in paths if not path.exists()]
        with self._database:
            dropped = self._remove({path for path in missing if path.parent.is_dir()})
        for file in dropped:
            file.unlink(missing_ok=True)
        return missing

    def count(self) -> tuple[int, float]:
        """Number of videos in the index that are there, and their total length in seconds."""
        rows = self._database.execute("SELECT path, seconds FROM videos")
        lengths = [seconds for path, seconds in rows if Path(os.fsdecode(path)).exists()]
        return len(lengths), sum(lengths)

    def _remove(self, paths: Iterable[Path]) -> list[Path]:
        """Delete rows; returns the files to delete after the commit."""
        removed = []
        for path in paths:
            key = (os.fsencode(path),)
            removed += self._database.execute("SELECT number FROM videos WHERE path = ?", key)
            self._database.execute("DELETE FROM videos WHERE path = ?", key)
        return [_clips_file(self._folder, number) for (number,) in removed]


@contextmanager
def writing(folder: Path) -> Iterator[IndexWriter]:
    """Open or create the index in a folder, locked for this process.

    Raises UserError if another process is writing it.
    """
    check_output_folder("--index", folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0), _opened(folder) as database:
            yield IndexWriter(folder, database)
    except Timeout:
        raise UserError(f"{folder}: another process is writing this index") from None


def _absolute(name: str) -> str:
    """The absolute path of a file or folder; other names are returned as they are."""
    return str(Path(name).absolute()) if Path(name).exists() else name


@contextmanager
def _opened(folder: Path) -> Iterator[sqlite3.Connection]:
    database = sqlite3.connect(folder / DATABASE)
    try:
        yield database
    except sqlite3.DatabaseError as error:
        reason = f"not an index of videos, or damaged ({error}); make a new index"
        if isinstance(error, sqlite3.OperationalError) and "no such" not in str(error):
            reason = f"{error}; what was indexed before is kept"  # the disk is full, or read-only
        raise UserError(f"{folder / DATABASE}: {reason}") from None
    finally:
        database.close()


def _read_run(folder: Path, database: sqlite3.Connection) -> IndexedRun | None:
    row = database.execute("SELECT description FROM run").fetchone()
    return row and parse_json(row[0].encode(), IndexedRun, folder / DATABASE)


def _clips_file(folder: Path, number: int | None) -> Path:
    return folder / f"{number}.npy"


def _stored_video(
    folder: Path, run: TrainedRun, number: int, starts: str, clip_seconds: float, seconds: float
) -> EncodedVideo:
    file = _clips_file(folder, number)
    try:
        clips = resident(map_array(file))
    except (OSError, ValueError, EOFError):
        raise UserError(f"{file}: missing or damaged; delete it and run index_videos.py") from None
    times = np.array(json.loads(starts)), clip_seconds, seconds
    return EncodedVideo(run.model, clips, *times, run.calibration)
