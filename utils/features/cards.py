"""What lies beside features: a card (frame rate, stride, width, ...) and a list of their rows."""

from pathlib import Path

import numpy as np

from utils.base.errors import UserError
from utils.base.files import read_json
from utils.base.tasks import ROWS_PER_SECOND

SHAPES_FILE, CARD_FILE = "feature_shapes.json", "feature_card.json"


def read_shapes(folder: Path) -> dict:
    """The listed rows of a folder's clips, empty if there is no list."""
    return _read_object(folder / SHAPES_FILE, "map clip uids to numbers of rows")


def read_card(folder: Path) -> dict:
    """The feature card of a folder, empty if it has none; `UserError` if it is invalid."""
    card = _read_object(folder / CARD_FILE, "hold names and values")
    check_card(card, folder / CARD_FILE)
    return card


def check_card(card: dict, file: Path) -> None:
    """Raises `UserError` if frame rate or stride are not numbers above 0."""
    for name in ("frame_rate", "stride"):
        value = card.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise UserError(f"{file}: {name} must be a number above 0, is {value!r}")


def rows_per_second(card: dict) -> float:
    """What a feature card says of it, or the rate of the published features."""
    rate, stride = card.get("frame_rate"), card.get("stride")
    return rate / stride if rate and stride else ROWS_PER_SECOND


def rows_off(rows: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """(C,) bool: which numbers of rows do not fit those expected of the clips' durations."""
    return np.abs(rows - expected) > np.maximum(2, 0.05 * expected)


def _read_object(file: Path, duty: str) -> dict:
    content = read_json(file) if file.is_file() else {}
    if not isinstance(content, dict):
        raise UserError(f"{file}: must {duty}")
    return content
