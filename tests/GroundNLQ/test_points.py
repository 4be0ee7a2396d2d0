"""Labels, candidates, soft-NMS and the ensemble's order are the published ones."""

import numpy as np
import pytest
import torch

from GroundNLQ.points import candidates, label_points, make_points, soft_nms

CLIPS = range(3)
PARTS = ("segments", "scores")


def assert_same(actual, expected, tolerance):
    torch.testing.assert_close(actual.double(), expected.double(), rtol=0, atol=tolerance)


def decoded(reference, clip, **settings):
    """Candidates of a clip, from the published logits and offsets."""
    levels = [
        [reference[f"level{level}/{part}"][clip] for level in range(4)]
        for part in ("logits", "offsets", "mask")
    ]
    logits, offsets, mask = (torch.cat(parts)[None] for parts in levels)
    windows, scores = candidates(logits.sigmoid() * mask, offsets, 256, 4, **settings)
    count = int((scores > 0).sum())
    assert (scores[0, :count] > 0).all()
    return windows, scores, count


def test_points_are_the_published_ones(reference):
    assert np.array_equal(make_points(256, 4), reference["points"].numpy())


@pytest.mark.parametrize("case", range(40))
def test_labels_are_the_published_ones(reference, case):
    windows = reference[f"labels/{case}/segments"].numpy()
    points = reference["points"].numpy().astype(np.float64)
    positive, offsets = label_points(points, windows[None], np.array([256]), nearest=False)
    numbers, targets = (
        reference[f"labels/{case}/{name}"].numpy() for name in ("positive_points", "targets")
    )
    assert np.array_equal(np.flatnonzero(positive[0]), numbers)
    np.testing.assert_allclose(offsets[0, numbers], targets, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("window", [[56.3, 56.7], [10.5, 10.6], [-3.0, -2.0], [400.0, 401.0]])
def test_a_window_shorter_than_a_row_or_outside_the_clip_gets_the_nearest_row(window):
    points, rows = make_points(256, 4), np.array([150])
    windows = np.array([[window]])
    assert not label_points(points, windows, rows, nearest=False)[0].any()
    positive, offsets = label_points(points, windows, rows, nearest=True)
    (row,) = np.flatnonzero(positive[0])
    assert row == np.clip(np.rint(np.mean(window)), 0, 149)
    expected = np.maximum([row - window[0], window[1] - row], 0)
    np.testing.assert_allclose(offsets[0, row], expected, rtol=1e-5)


@pytest.mark.parametrize("clip", CLIPS)
def test_candidates_are_the_published_ones(reference, clip):
    windows, scores, count = decoded(reference, clip)
    for part, candidates_of_part in zip(PARTS, (windows, scores), strict=True):
        levels = [reference[f"decoded/clip{clip}/level{level}/{part}"] for level in range(4)]
        assert_same(candidates_of_part[0, :count], torch.cat(levels), 1e-4)
    windows, scores, count = decoded(reference, clip, least_score=0.2, most=10)
    expected = [reference[f"decoded_top10_thresh0.2/clip{clip}/{name}"] for name in PARTS]
    if not len(expected[0]):  # our best one nevertheless
        assert count == 1 and scores[0, 0] <= 0.2
    else:
        assert_same(windows[0, :count], expected[0], 1e-4)
        assert_same(scores[0, :count], expected[1], 1e-5)


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize(("prefix", "count"), [("final", 5), ("final50", 50)])
def test_best_windows_are_the_published_ones(reference, clip, prefix, count):
    windows, scores, _ = decoded(reference, clip)
    windows, scores = soft_nms(windows, scores, count)
    left = scores[0] > 0
    assert_same(windows[0, left], reference[f"{prefix}/clip{clip}/grid"], 1e-3)
    assert_same(scores[0, left], reference[f"{prefix}/clip{clip}/scores"], 1e-5)


@pytest.mark.parametrize("case", range(1, 30))
def test_soft_nms_is_the_published_one(reference, case):
    windows, scores, settings, out = (
        reference[f"softnms/{case}/{name}"] for name in ("segments", "scores", "sigma_min", "out")
    )
    # Beside another query that has more candidates.
    more = 7
    both = torch.rand(2, len(scores) + more, 2).cumsum(2)
    both_scores = torch.rand(2, len(scores) + more) / 2 + 0.5
    both[0, : len(scores)] = windows
    both_scores[0] = 0
    both_scores[0, : len(scores)] = scores
    sigma, least = settings.tolist()
    suppressed, decayed = soft_nms(both, both_scores, len(scores) + more, sigma, least)
    assert int((decayed[0] > 0).sum()) == len(out)
    assert_same(suppressed[0, : len(out)], out[:, :2], 1e-6)
    assert_same(decayed[0, : len(out)], out[:, 2], 1e-5)
    assert torch.equal(soft_nms(both, both_scores, 5, sigma, least)[0], suppressed[:, :5])


def test_a_query_without_any_good_point_keeps_its_best():
    probability = torch.full((1, 480), 1e-5)
    probability[0, 77] = 2e-5
    windows, scores = candidates(probability, torch.ones(1, 480, 2), 256, 4)
    assert scores[0, :2].tolist() == [pytest.approx(2e-5), 0]
    assert windows[0, 0].tolist() == [76, 78]
