"""The chance that a predicted window is right, fitted to the model's own score (Platt, 1999).

Shapes: N windows.
"""

from typing import Annotated, NamedTuple

import numpy as np
from msgspec import Meta, Struct

from utils.base.errors import UserError

CALIBRATION_FILE = "calibration.json"  # beside its checkpoint
RIGHT = 0.3  # IoU above which a window is right
BINS = 8
STEPS = 50  # of Newton's method; about ten are needed
LEAST = 1e-4  # distance of a score from 0 and 1: none is taken to be surer
TINY = 1e-6


class Calibration(Struct, frozen=True):
    """A line from the log-odds of a score to those of the window being right."""

    slope: Annotated[float, Meta(gt=0)]
    intercept: float
    checkpoint: str  # hash of the one whose scores it fits

    def chances(self, scores: np.ndarray) -> np.ndarray:
        """Chances, shaped as the scores from 0 to 1; they rise with them."""
        return _sigmoid(self.slope * _log_odds(scores) + self.intercept)


class Bin(NamedTuple):
    """Windows with like chances."""

    chance: float  # mean
    right: float  # share
    windows: int


def fit_calibration(scores: np.ndarray, right: np.ndarray, checkpoint: str) -> Calibration:
    """The line of highest likelihood, given scores (N,) from 0 to 1 and which windows are right.

    Targets are a little off 0 and 1, as Platt's, so that there always is such a line. Raises
    UserError if the chance does not rise with the score.
    """
    hits, misses = np.count_nonzero(right), np.count_nonzero(~right)
    targets = np.where(right, (hits + 1) / (hits + 2), 1 / (misses + 2))
    log_odds = _log_odds(scores)
    mean, spread = log_odds.mean(), log_odds.std() or 1.0
    inputs = np.stack([(log_odds - mean) / spread, np.ones(len(scores))], 1)  # (N, 2)

    def loss(line: np.ndarray) -> float:
        logits = inputs @ line
        return float((np.logaddexp(0, logits) - targets * logits).sum())

    line = np.zeros(2)
    for _ in range(STEPS):
        chances = _sigmoid(inputs @ line)
        curvature = (inputs * (chances * (1 - chances))[:, None]).T @ inputs
        step = np.linalg.solve(curvature + TINY * np.eye(2), inputs.T @ (chances - targets))
        while loss(line - step) > loss(line) and np.abs(step).max() > TINY:
            step /= 2
        line -= step
    slope = float(line[0] / spread)
    if slope <= 0:
        raise UserError(
            f"{hits} of {len(scores)} windows are right, and those with a high score no more often "
            "than others: such scores give no chances; train the run further"
        )
    return Calibration(slope, float(line[1] - slope * mean), checkpoint)


def reliability(chances: np.ndarray, right: np.ndarray) -> list[Bin]:
    """Windows (N,) in bins of as many each, by their chance."""
    bins = np.array_split(np.argsort(chances, kind="stable"), min(BINS, len(chances)))
    return [Bin(float(chances[b].mean()), float(right[b].mean()), len(b)) for b in bins]


def _log_odds(scores: np.ndarray) -> np.ndarray:
    scores = np.clip(scores, LEAST, 1 - LEAST)
    return np.log(scores) - np.log1p(-scores)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(logits / 2)
