"""Pictures of queries and windows."""

import json

import numpy as np

from tests.samples import prepared_clip
from utils.data.records import read_records
from utils.evaluation.timelines import LEFT, PREDICTED, TRUE, WIDTH, draw_examples


def draw(folder, seconds, truth, windows):
    """The picture of a query of a clip of so many seconds."""
    clip = prepared_clip(("where?", 0, 1), num_frames=seconds) | {"fps": 1.0}
    (folder / "val.json").write_text(json.dumps({"clip": clip}))
    return draw_examples(read_records(folder / "val.json"), np.array([truth]), np.array([windows]))


def columns(image, colour):
    """Which columns hold a colour anywhere."""
    return np.flatnonzero((image == np.array(colour)).all(2).any(0))


def test_windows_lie_where_their_seconds_say(tmp_path):
    image = draw(tmp_path, 100, [25.0, 50.0], [[75.0, 100.0]])
    length = WIDTH - 2 * LEFT
    true, predicted = columns(image, TRUE), columns(image, PREDICTED)
    assert abs(true[0] - (LEFT + length / 4)) <= 1 and abs(true[-1] - (LEFT + length / 2)) <= 1
    assert abs(predicted[0] - (LEFT + length * 0.75)) <= 1
    assert abs(predicted[-1] - (LEFT + length)) <= 1


def test_unknown_times_and_windows_past_the_clip(tmp_path):
    image = draw(tmp_path, 10, [np.nan, np.nan], [[-5.0, 500.0], [30.0, 30.0]])
    assert not len(columns(image, TRUE))
    assert columns(image, PREDICTED)[0] == LEFT
    assert image.dtype == np.uint8 and image.shape[1:] == (WIDTH, 3)
