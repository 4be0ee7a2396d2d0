"""Files beside features: a card (frame rate, stride, width, ...) and a list of numbers of rows."""

from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct

from utils.base.errors import UserError
from utils.base.files import read_json
from utils.base.tasks import ROWS_PER_SECOND

SHAPES_FILE, CARD_FILE = "feature_shapes.json", "feature_card.json"


class Rates(Struct):
    """The keys of a feature card that are checked; it may have others."""

    frame_rate: Annotated[float, Meta(gt=0)] | None = None  # of the video, per second
    stride: Annotated[float, Meta(gt=0)] | None = None  # frames between feature rows


def read_shapes(folder: Path) -> dict[str, int]:
    """Numbers of rows by clip uid from a folder's list, empty if it has none."""
    file = folder / SHAPES_FILE
    return read_json(file, dict[str, int]) if file.is_file() else {}


def read_card(folder: Path) -> dict:
    """The feature card of a folder, empty if it has none; raises UserError if it is invalid."""
    file = folder / CARD_FILE
    card = read_json(file, dict) if file.is_file() else {}
    check_card(card, file)
    return card


def check_card(card: dict, file: Path) -> None:
    """Raises UserError if frame rate or stride are not numbers above 0."""
    try:
        msgspec.convert(card, Rates)
    except msgspec.ValidationError as error:
        raise UserError(f"{file}: {error}") from None


def rows_per_second(card: dict) -> float:
    """Rows per second by a feature card, or those of the published features."""
    rate, stride = card.get("frame_rate"), card.get("stride")
    return rate / stride if rate and stride else ROWS_PER_SECOND


def rows_off(rows: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """(C,) bool: numbers of rows that differ from those expected by the clips' durations."""
    return np.abs(rows - expected) > np.maximum(2, 0.05 * expected)
