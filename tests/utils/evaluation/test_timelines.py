"""Pictures of queries and windows."""

import numpy as np

from utils.evaluation.timelines import LEFT, PREDICTED, TRUE, WIDTH, Example, draw


def columns(image, colour):
    """Which columns hold a colour anywhere."""
    return np.flatnonzero((image == np.array(colour)).all(2).any(0))


def test_windows_lie_where_their_seconds_say():
    example = Example("where?", 100.0, np.array([25.0, 50.0]), np.array([[75.0, 100.0]]))
    image = draw([example])
    length = WIDTH - 2 * LEFT
    true, predicted = columns(image, TRUE), columns(image, PREDICTED)
    assert abs(true[0] - (LEFT + length / 4)) <= 1 and abs(true[-1] - (LEFT + length / 2)) <= 1
    assert abs(predicted[0] - (LEFT + length * 0.75)) <= 1
    assert abs(predicted[-1] - (LEFT + length)) <= 1


def test_unknown_times_are_left_out_and_windows_past_the_clip_cut():
    windows = np.array([[-5.0, 500.0], [30.0, 30.0]])
    image = draw([Example("?", 10.0, np.array([np.nan, np.nan]), windows)])
    assert not len(columns(image, TRUE))
    assert columns(image, PREDICTED)[0] == LEFT
    assert image.dtype == np.uint8 and image.shape[1:] == (WIDTH, 3)
