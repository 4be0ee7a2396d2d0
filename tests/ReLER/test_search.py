"""A trained ReLER asked about videos: it reads them as inference does."""

import numpy as np
import pytest
import torch

from ReLER.data import open_split
from ReLER.weights import load_trained
from tests.bad_inputs.world import RELER_RUN, WIDTH, checkpoint
from utils.features.pooled import pool_rows
from utils.search.search import load_run

CPU = torch.device("cpu")
FEATURES = ("egovlp", "clip")


@pytest.fixture(scope="module")
def trained(small_root, tmp_path_factory):
    """How a run searches, its model, and its validation split."""
    folder, cache = small_root / RELER_RUN, str(tmp_path_factory.mktemp("cache"))
    options, model, text = load_trained(checkpoint(folder), CPU, cache_dir=cache)
    split = open_split(options, "val", text, CPU, tolerant=False)
    return load_run(folder, device="cpu").model, model, split


def test_clips_are_read_as_in_inference(trained, small_root):
    searcher, model, split = trained
    assert searcher.features == FEATURES and searcher.width == 2 * WIDTH
    clips = np.unique(split.records.clip)
    rows = np.array([np.flatnonzero(split.records.clip == clip)[0] for clip in clips])
    inputs = split.inputs(rows, CPU)
    for place, clip in enumerate(clips):
        name = f"{split.records.clip_uids[clip]}.pt"
        files = [small_root / "features" / feature / name for feature in FEATURES]
        units = int(inputs.video_mask[place].sum())
        pooled = pool_rows(searcher.join([torch.load(file).numpy() for file in files]), units)
        with torch.inference_mode():
            encoded = searcher.encode(torch.from_numpy(pooled[None]))[0]
            expected = model.embed_video(inputs.video[place : place + 1, :units])[0]
        assert torch.allclose(encoded, expected, atol=2e-2)  # stored in half precision


def test_all_scales_are_asked(trained):
    searcher, model, _ = trained
    pooled = torch.randn(3, searcher.units, searcher.width)
    with torch.inference_mode():
        text, clips = searcher.read(["where is the cup?", "who?"]), searcher.encode(pooled)
        looks = range(len(searcher.promising))
        spans = torch.cat([searcher.ask(clips, text, 1, 4, look)[0] for look in looks], 1)
        assert spans.shape == (3, 20, 2)
        units = torch.arange(searcher.units)
        ends = torch.stack([units, units + 1], 1) / searcher.units
        video = torch.cat([pooled, ends.expand(3, -1, -1)], 2)
        query = text(np.array([1, 1, 1]))
        mask = torch.ones(3, searcher.units)
        best, _ = model.predict_scales(video, mask, query.tokens, query.mask, len(units), top=4)
    assert (spans[:, :, None] == best[:, None]).all(-1).any(1).all()
