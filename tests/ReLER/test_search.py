"""A trained ReLER asked about videos: it reads them as inference does."""

import numpy as np
import pytest
import torch

from ReLER.data import open_split
from ReLER.options import Options
from ReLER.text import TEXT_FILE, open_text
from ReLER.weights import build_model, checkpoint_content
from utils.base.files import write_json
from utils.base.tensor_files import save_atomically
from utils.features.mapped import pool_rows
from utils.search.search import load_run

UNITS = 60
ASK = ["Where was the plate?", "Who was there?"]


@pytest.fixture(scope="module")
def trained(simulated, tmp_path_factory):
    """A run folder as training leaves it, with its validation split."""
    folder = tmp_path_factory.mktemp("search")
    options = Options(
        task="nlq_official_v1", fv="egovlp", mode="val", data_root=str(simulated),
        cache_dir=str(folder / "cache"), results_root=str(folder), text_encoder="minilm",
        max_v_l=UNITS, hidden_dim=16, bi_num_attention_heads=2, v_intermediate_size=32,
        intermediate_size=32, conditioned_span_pred_num_heads=2,
    )  # fmt: skip
    text = open_text(options)
    data = open_split(options, "val", text, torch.device("cpu"), tolerant=False)
    model = build_model(options, data.width, text.width).eval()
    content = checkpoint_content(model, torch.optim.AdamW(model.parameters()), options, 0)
    write_json(options.run_folder / options.OPTIONS_FILE, {})
    write_json(options.run_folder / TEXT_FILE, text.describe())
    save_atomically(content, options.run_folder / "model_7.t7")
    return options.run_folder, data, model


def files(data, uid):
    return [data / "features" / name / f"{uid}.pt" for name in ("egovlp", "clip")]


def test_clips_are_read_as_in_inference(trained, simulated):
    folder, data, model = trained
    searcher = load_run(folder).model
    assert searcher.features == ("egovlp", "clip") and searcher.width == 256 + 512
    clips = np.unique(data.records.clip)
    rows = np.array([np.flatnonzero(data.records.clip == clip)[0] for clip in clips])
    inputs = data.inputs(rows, torch.device("cpu"))
    for place, clip in enumerate(clips):
        uid = data.records.clip_uids[clip]
        features = [torch.load(file).float().numpy() for file in files(simulated, uid)]
        units = int(inputs.video_mask[place].sum())
        pooled = pool_rows(searcher.join(features), UNITS)
        assert len(pooled) == units
        with torch.inference_mode():
            encoded = searcher.encode(torch.from_numpy(pooled[None]))[0]
            expected = model.embed_video(inputs.video[place : place + 1, :units])[0]
        assert torch.allclose(encoded, expected, atol=2e-2)  # stored in half precision


def test_all_scales_are_asked(trained):
    folder, _, model = trained
    searcher = load_run(folder).model
    pooled = torch.randn(3, UNITS, 768)
    with torch.inference_mode():
        text = searcher.read(ASK)
        clips = searcher.encode(pooled)
        looks = range(len(searcher.promising))
        looks = [searcher.ask(clips, text, 1, 4, look)[0] for look in looks]
        spans = torch.cat(looks, 1)
        assert spans.shape == (3, 20, 2)
        ends = torch.stack([torch.arange(UNITS), torch.arange(UNITS) + 1], 1) / UNITS
        video = torch.cat([pooled, ends.expand(3, -1, -1)], 2)
        query = text(np.array([1, 1, 1]), "cpu")
        mask = torch.ones(3, UNITS)
        best, _ = model.predict_scales(video, mask, query.tokens, query.mask, UNITS, top=4)
    offered = (spans[:, :, None] == best[:, None]).all(-1).any(1)
    assert offered.all()
