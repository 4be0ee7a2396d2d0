"""The validation split of a training: what is right, and what one evaluation says of it."""

from pathlib import Path

import numpy as np

from utils.base.errors import UserError
from utils.data.records import Records
from utils.evaluation.predictions import write_results
from utils.evaluation.scoring import GroundTruth, ground_truth, report, score
from utils.evaluation.timelines import draw_examples


def truth_to_train_by(records: Records, listed: int, annotations: str | None) -> GroundTruth:
    """The windows that checkpoints are chosen by; raises UserError if there are none."""
    truth = ground_truth(records, listed, annotations)
    if truth is None:
        raise UserError(
            f"{annotations or 'val.json'}: holds no times, and training needs a split with times "
            "to choose checkpoints by; give --eval_gt_json"
        )
    return truth


def validate(
    truth: GroundTruth,
    records: Records,
    windows: np.ndarray,  # (R, K, 2) seconds, best first
    scores: np.ndarray,  # (R, K)
    file: Path | None,
    title: str,
) -> tuple[dict[str, float], str, np.ndarray | None]:
    """Figures in per cent by name, the published table, and a picture (H, W, 3) of some queries.

    The main process names a `file`, where the windows are kept; the others get no picture.
    """
    scored = score(truth, windows)
    picture = None
    if file is not None:
        write_results(file, records.keys, windows, scores)
        picture = draw_examples(records, truth.seconds, windows)
    return scored.percentages(), report(scored, title), picture
