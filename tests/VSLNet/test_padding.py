"""Padding: as published, or hidden from the convolutions; and that a run remembers which."""

import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bad_inputs import world
from tests.bad_inputs.world import run_here
from tests.VSLNet.test_model import Golden
from utils.evaluation.predictions import read_predictions
from utils.features.pooled import pool_rows
from utils.features.text_encoders import TextEncoder, find_encoder
from VSLNet.model import VSLNet
from VSLNet.words import Vocabulary

SENTENCES = [
    "where is it?",
    "how many of the red plates did i wash by hand at the sink before lunch today?",
    "who?",
]


@pytest.mark.parametrize("kind", ["alone", "alone_padded"])
def test_published_padding_gives_the_published_numbers(golden, kind):
    reference = Golden(golden / "vslnet_transformer.npz")
    expected = np.load(golden / "extra" / "vslnet_batching.npz")
    n = reference.numbers
    for sample in range(3):
        units, tokens = n["video_features"].shape[1], n["text_features"].shape[1]
        if kind == "alone":
            units, tokens = (int(n[f"{name}_mask"][sample].sum()) for name in ("video", "query"))
        one = slice(sample, sample + 1)
        out = reference.model(
            n["video_features"][one, :units],
            n["video_mask"][one, :units],
            n["text_features"][one, :tokens],
            n["query_mask"][one, :tokens],
        )
        for name, value in (
            ("highlight_scores", out.highlight_logits.sigmoid()),
            ("start_logits", out.start_logits),
            ("end_logits", out.end_logits),
        ):
            torch.testing.assert_close(
                value[0].detach(),
                torch.from_numpy(expected[f"{kind}/{sample}/{name}"]),
                rtol=0,
                atol=1e-4,
            )


@given(seed=st.integers(0, 999), predictor=st.sampled_from(["bert", "rnn"]), data=st.data())
@settings(max_examples=25, deadline=None)
def test_masked_predictions_depend_on_the_sample_alone(seed, predictor, data):
    torch.manual_seed(seed)
    model = VSLNet(video_dim=6, text_dim=5, dim=8, num_heads=2, predictor=predictor).eval()
    units, tokens = (data.draw(st.lists(st.integers(1, 30), min_size=3, max_size=3)) for _ in "vq")
    video, text = torch.randn(3, max(units) + 9, 6), torch.randn(3, max(tokens) + 9, 5)
    video_mask, text_mask = (
        (torch.arange(x.shape[1]) < torch.tensor(lengths)[:, None]).float()
        for x, lengths in ((video, units), (text, tokens))
    )
    batch = model(video, video_mask, text, text_mask)
    for sample, (length, words) in enumerate(zip(units, tokens, strict=True)):
        one = slice(sample, sample + 1)
        alone = model(
            video[one, :length],
            video_mask[one, :length],
            text[one, :words],
            text_mask[one, :words],
        )
        for together, apart in zip(batch, alone, strict=True):
            torch.testing.assert_close(together[one, :length], apart, rtol=1e-4, atol=1e-5)


def test_masked_characters_depend_on_the_word_alone_and_published_ones_on_the_longest():
    encoded = Vocabulary(["where", "is"], list("abcdefghijklmnopqrstuvwxyz")).encode(
        ["where is", "is is", "extraordinarily"]
    )

    def widths(padded_words):
        batches = (encoded.batch(np.array([row]), "cpu", padded_words) for row in range(3))
        return [batch.characters.shape[2] for batch in batches]

    assert len(set(widths(True))) == 1
    assert widths(False) == [5, 4, 15]  # the longest word, but no less than the widest kernel


def padded_by_the_encoder(sentences):
    """(S, Q, width) features of a batch, padding included, from `transformers` itself."""
    from transformers import AutoModel, AutoTokenizer

    folder = find_encoder("minilm")
    tokens = AutoTokenizer.from_pretrained(folder)(sentences, padding=True, return_tensors="pt")
    with torch.no_grad():
        features = AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state
    return features, tokens["attention_mask"].float()


def published_windows(weights, data, annotations):
    """What published code predicts: batches of 32 in the order of the file, in plain steps.

    Queries with windows of at most 1/30 s are left out, as the script asks.
    """
    model = VSLNet(video_dim=256, text_dim=384, padding="published").eval()
    model.load_state_dict(weights)
    queries = [
        (clip_uid, entry, *query)
        for clip_uid, entry in json.loads(annotations.read_text()).items()
        for *query, (start, end) in zip(
            entry["sentences"],
            entry["annotation_uids"],
            entry["query_idx"],
            entry["exact_times"],
            strict=True,
        )
        if end - start > 1 / 30
    ]
    windows = {}
    for first in range(0, len(queries), 32):
        batch = queries[first : first + 32]
        clips = [
            torch.from_numpy(pool_rows(torch.load(data / "features/egovlp" / f"{q[0]}.pt"), 128))
            for q in batch
        ]
        video = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
        video_mask = (
            torch.arange(video.shape[1]) < torch.tensor([[len(c)] for c in clips])
        ).float()
        with torch.no_grad():
            out = model(video, video_mask, *padded_by_the_encoder([q[2] for q in batch]))
        products = (
            out.start_logits.softmax(1)[..., None] * out.end_logits.softmax(1)[:, None]
        ).triu()
        for query, clip, table in zip(batch, clips, products, strict=True):
            spans = table.flatten().topk(5).indices
            first_unit, last_unit = spans // table.shape[1], spans % table.shape[1]
            second = query[1]["num_frames"] / query[1]["fps"] / len(clip)
            windows[query[0], query[3], query[4]] = torch.stack(
                [first_unit * second, (last_unit + 1) * second], 1
            ).numpy()
    return windows


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A checkpoint in the published layout, with the text encoder in it and no options of ours."""
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("released")
    model = VSLNet(video_dim=256, text_dim=384)
    with torch.no_grad():
        for parameter in model.parameters():  # so that padding matters
            parameter.add_(0.1 * torch.randn_like(parameter))
    weights = model.state_dict()
    run = folder / "checkpoints" / "vslnet_nlq_official_v1_egovlp_128_bert" / "model"
    run.mkdir(parents=True)
    encoder = TextEncoder("minilm").model.state_dict()
    torch.save(
        {**weights, **{f"embedding_net.embedder.{k}": v for k, v in encoder.items()}},
        run / "vslnet_40.t7",
    )
    return folder, weights


@pytest.fixture(scope="module")
def many_queries(simulated, tmp_path_factory):
    """A data root whose validation split has several batches of queries."""
    data = tmp_path_factory.mktemp("many") / "data"
    split = data / "dataset/nlq_official_v1/val.json"
    split.parent.mkdir(parents=True)
    shutil.copy(simulated / "dataset/nlq_aug_naq_official_v1/train.json", split)
    shutil.copy(simulated / "nlq_aug_naq_train.json", data / "nlq_val.json")
    (data / "features").symlink_to(simulated / "features")
    return data


def predict(folder, data, *options):
    words = (
        f"--task nlq_official_v1 --fv egovlp --mode val --model_dir {folder}/checkpoints "
        f"--data_root {data} --eval_gt_json {data}/nlq_val.json --text_encoder minilm "
        "--remove_empty_queries_from train val"
    )
    options = [str(option) for option in options]
    assert run_here("VSLNet/main.py", [*words.split(), *options], folder) is None
    (result,) = folder.glob("checkpoints/*/model/*_val_result.json")
    return {p.key: np.array(p.windows) for p in read_predictions(result)}


@pytest.mark.parametrize("text_features", ["cached", "live"])
def test_a_released_checkpoint_gives_the_published_windows(released, many_queries, text_features):
    folder, weights = released
    found = predict(folder, many_queries, "--text_features", text_features)
    expected = published_windows(
        weights, many_queries, many_queries / "dataset/nlq_official_v1/val.json"
    )
    assert found.keys() == expected.keys() and len(found) > 64
    for query, windows in expected.items():
        np.testing.assert_allclose(found[query], windows, atol=1e-3, err_msg=str(query))


def test_a_run_remembers_its_padding(data, tmp_path):
    def folder(name):
        return data / "vslnet" / f"vslnet_nlq_official_v1_egovlp_16_bert_{name}" / "model"

    def train(name, *options):
        return world.run("VSLNet/main.py train", data, "--suffix", name, *options)

    def padding(name):
        return json.loads((folder(name) / "configs.json").read_text())["padding"]

    assert train("new") is None and padding("new") == "masked"
    assert train("old", "--padding", "published") is None and padding("old") == "published"
    assert train("old") is None  # continues: nothing is left to do
    for start, expected in (("new", "masked"), ("old", "published")):
        assert train(f"{start}_tuned", "--init_from", str(folder(start))) is None
        assert padding(f"{start}_tuned") == expected
    # A published checkpoint comes without options of ours.
    shutil.copy(world.checkpoint(folder("new")), tmp_path / "vslnet_40.t7")
    assert train("tuned", "--init_from", str(tmp_path / "vslnet_40.t7")) is None
    assert padding("tuned") == "published"
