"""Sheets of frames."""

import numpy as np
import pytest

from utils.search import contact_sheet
from utils.search.contact_sheet import FRAMES, GAP, HEIGHT, write_sheet

image = pytest.importorskip("PIL.Image")


def test_a_sheet_of_an_upright_video_is_wide_enough_for_its_words(tmp_path, monkeypatch):
    upright = np.full((HEIGHT, 40, 3), 200, np.uint8)
    monkeypatch.setattr(contact_sheet, "frames_at", lambda _, times, *__: [upright] * len(times))
    narrow, wide = tmp_path / "narrow.png", tmp_path / "wide.png"
    write_sheet(narrow, [("Where?", None), ("1.", (tmp_path, 0, 5))])
    question = "Where did I put the keys? " * 5
    write_sheet(wide, [(question, None), ("1.", (tmp_path, 0, 5))])
    across = FRAMES * (40 + GAP) - GAP
    assert image.open(narrow).width == across
    pixels = np.asarray(image.open(wide).convert("L"))
    written = np.flatnonzero((pixels < 100).any(0))  # columns with black letters
    assert written.max() > 2 * across and pixels.shape[1] - written.max() >= GAP
