"""Search in a video of any length: load a trained run, encode the video, ask questions.

    from utils.search import load_run
    run = load_run("experiments/runs/joint")
    video = run.encode("features/egovlp/monday.pt")
    answers = video.ask(["Where did I put the keys?"])
    answers.windows[0], answers.scores[0]      # five [start, end] in seconds, best first

A long video is cut into overlapping clips of the length of training clips. Each clip is encoded
once for all questions; its answers are merged by temporal non-maximum suppression.

Shapes: R feature rows, F feature dim, C clips, V units, D hidden, Q questions, k windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from msgspec import Meta, Struct
from tqdm import tqdm

from utils.base.errors import UserError, warn
from utils.base.files import has_video, read_json
from utils.base.machine import find_device
from utils.base.tasks import ROWS_PER_SECOND
from utils.data.records import read_records
from utils.evaluation.calibration import CALIBRATION_FILE, Calibration
from utils.features.cards import read_card
from utils.features.files import FeatureFolder
from utils.features.image_encoders import ImageEncoder, extract_rows
from utils.features.image_kinds import KINDS, encoder_of_each
from utils.features.pooled import pool_rows
from utils.search.models import package_of
from utils.search.ranking import EncodedVideo, Searcher
from utils.training.checkpoints import checkpoint_hash, find_checkpoint
from utils.training.runs import MADE_FILE

CLIP_SECONDS = 480.0  # of Ego4D NLQ's clips, if the data set of training is missing
BATCH_CLIPS = 16  # encoded together

CLIPS_FILE = "clips.json"  # in the folder of a shared run


class TrainedClips(Struct):
    """The content of `CLIPS_FILE`: the length of training clips, and how features were made."""

    median_seconds: Annotated[float, Meta(gt=0, le=1e6)]
    cards: dict[str, dict[str, Any]] = {}  # of the features by name


FeatureSource = str | Path | np.ndarray | torch.Tensor
VideoSource = FeatureSource | Sequence[FeatureSource]


def load_run(
    run: str | Path,
    text_encoder: str | None = None,
    clip_seconds: float | None = None,
    device: str = "auto",
    image_encoders: Sequence[str] | None = None,
) -> TrainedRun:
    """Load a run of any model from its folder or a checkpoint file.

    Args:
        text_encoder: the run's text encoder on this machine, if it has been moved.
        clip_seconds: length of the clips that a video is cut into (default: as in training).
        device: `auto` is the GPU if there is one.
        image_encoders: names or folders of encoders for videos without features: one, or one for
            each feature that the model reads (default: those of the run's feature cards, or the
            published ones).

    Raises:
        UserError: no checkpoint, a checkpoint of another model, another text encoder, or no such
            device.
    """
    checkpoint = find_checkpoint(run)
    if clip_seconds is not None and not 0 < clip_seconds < math.inf:
        raise UserError(f"--clip_seconds must be above 0 and finite, is {clip_seconds:g}")
    searcher = package_of(checkpoint).module("search").Searcher
    model = searcher(checkpoint, text_encoder, find_device(device))
    if clip_seconds is None:
        options = model.options
        clip_seconds = trained_clip_seconds(checkpoint.parent, options.data_root, options.task)
    calibration = read_calibration(checkpoint)
    return TrainedRun(model, clip_seconds, image_encoders, calibration, checkpoint.parent)


def read_calibration(checkpoint: Path) -> Calibration | None:
    """What `calibrate_run.py` wrote beside a checkpoint; warns if it is of another one."""
    file = checkpoint.parent / CALIBRATION_FILE
    if not file.is_file():
        return None
    calibration = read_json(file, Calibration)
    if calibration.checkpoint == checkpoint_hash(checkpoint):
        return calibration
    warn(f"{file}: not of {checkpoint.name}, so there are no chances; run calibrate_run.py again")
    return None


def trained_clip_seconds(run: Path, data_root: str, task: str) -> float:
    """Median length of the training data set's clips."""
    if (run / CLIPS_FILE).is_file():
        return read_json(run / CLIPS_FILE, TrainedClips).median_seconds
    file = _data_root(run, data_root) / "dataset" / task / "val.json"
    if file.is_file():
        return float(np.median(read_records(file).clip_seconds))
    warn(
        f"{file}: no such file, so the length of training clips is not known; using "
        f"{CLIP_SECONDS:g} s, or give --clip_seconds"
    )
    return CLIP_SECONDS


def trained_cards(
    run: Path | None, data_root: str, names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The cards of a run's features, by name: of a shared run, or else of its data root."""
    shared = run and run / CLIPS_FILE
    if shared and shared.is_file() and (cards := read_json(shared, TrainedClips).cards):
        return cards
    root = Path(data_root) if run is None else _data_root(run, data_root)
    return {name: read_card(root / "features" / name) for name in names}


def _data_root(run: Path, data_root: str) -> Path:
    """The data root of training: a relative path starts where training was started."""
    file = run / MADE_FILE
    starts = read_json(file, list[dict]) if file.is_file() else []
    folders = [Path(start.get("folder", ""), data_root) for start in starts[-1:]]
    return next((folder for folder in folders if folder.is_dir()), Path(data_root))


@dataclass(frozen=True)
class TrainedRun:
    """A trained model that answers questions about videos."""

    model: Searcher
    clip_seconds: float
    image_encoders: Sequence[str] | None = None
    calibration: Calibration | None = None
    folder: Path | None = None  # of the run

    @torch.inference_mode()
    def encode(
        self, video: VideoSource, rate: float | None = None, frame_rate: float | None = None
    ) -> EncodedVideo:
        """Encode a video.

        Args:
            video: features (R, F) as a `.pt` file, tensor or array, or several of them in the order
                of `model.features`; or a video file, from which `image_encoders` extract them.
            rate: rows per second (default: that of the feature card beside the file, or 1.875).
            frame_rate: of a video file that is a raw stream.
        """
        if isinstance(video, str | Path) and has_video(Path(video)):
            video = self.extract(Path(video), frame_rate)
        features, card_rate = video_features(video, self.model.features)
        rate = rate or card_rate
        width = sum(part.shape[1] for part in features)
        if self.model.width != width:
            raise UserError(
                f"features are {width} wide, the model was trained on {self.model.width} "
                f"({' and '.join(self.model.features)}); give features of the same kind"
            )
        rows = self.model.join(features)
        length = max(1, min(len(rows), round(self.clip_seconds * rate)))
        starts = clip_starts(len(rows), length)
        encoded = []
        batches = range(0, len(starts), BATCH_CLIPS)
        for first in tqdm(batches, "encoding video", unit="batch", leave=False):
            batch = starts[first : first + BATCH_CLIPS]
            pooled = [pool_rows(rows[at : at + length], self.model.units) for at in batch]
            clips = torch.from_numpy(np.stack(pooled)).to(self.model.device)
            encoded.append(self.model.encode(clips))
        seconds = starts / rate, length / rate, len(rows) / rate
        return EncodedVideo(self.model, torch.cat(encoded), *seconds, self.calibration)

    def extract(self, video: Path, frame_rate: float | None = None) -> list[np.ndarray]:
        return extract_rows(self._extractors, video, frame_rate)

    @cached_property
    def _extractors(self) -> list[ImageEncoder]:
        """The image encoder of each feature that the model reads."""
        names, extractors = self.model.features, []
        cards = trained_cards(self.folder, self.model.options.data_root, names)
        for name, encoder in zip(names, encoder_of_each(names, self.image_encoders), strict=True):
            card = cards.get(name, {})
            kind = card.get("type", name)
            if kind not in KINDS:
                raise UserError(
                    f"the model reads {name} features, and only {', '.join(KINDS)} can be "
                    "extracted here; extract them with their own release, give --features"
                )
            device = str(self.model.device)
            extractor = ImageEncoder(kind, encoder or card.get("model"), device)
            if card.get("hash", extractor.hash) != extractor.hash:
                warn(
                    f"image encoder {extractor.name}: has other weights than the one that made the "
                    f"{name} features of training; give that one with --encoder"
                )
            extractors.append(extractor)
        return extractors


def clip_starts(rows: int, length: int) -> np.ndarray:
    """First rows of evenly spaced clips of `length` rows that overlap by at least a half.

    A window of at most half a clip lies entirely in one of them.
    """
    last_start = rows - length
    count = -(-last_start // max(1, length // 2)) + 1
    return np.rint(np.linspace(0, last_start, count)).astype(np.int64)


def video_features(video: VideoSource, names: tuple[str, ...]) -> tuple[list[np.ndarray], float]:
    """Read the features `names` of a video, each (R, F), and their rows per second."""
    sources = list(video) if isinstance(video, tuple | list) else [video]
    if len(sources) != len(names):
        raise UserError(
            f"the model reads {' and '.join(names)} features, one file each; {len(sources)} given"
        )
    features, rates = zip(*map(_feature_rows, sources), strict=True)
    if len(set(rates)) > 1:
        listed = ", ".join(f"{rate:g}" for rate in rates)
        raise UserError(f"features of different rates ({listed} rows a second): extract them alike")
    return list(features), rates[0]


def _feature_rows(source: FeatureSource) -> tuple[np.ndarray, float]:
    if isinstance(source, str | Path):
        file = Path(source)
        if has_video(file) or not file.is_file():
            raise UserError(f"{file}: no such file of features (.pt)")
        folder = FeatureFolder(file.parent, [file.stem])
        [(_, features)] = folder.each(f"reading {file.name}")
        return features, folder.rate
    features = source.numpy(force=True) if torch.is_tensor(source) else np.asarray(source)
    if features.ndim != 2 or not features.size:
        raise UserError(f"features must be (rows, width), are {tuple(features.shape)}")
    return features, ROWS_PER_SECOND
