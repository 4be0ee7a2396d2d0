"""Text encoders: one interface, the features of the original models, stores that fit."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from utils.errors import UserError
from utils.text import find_encoder, load_encoder, pad_tokens
from utils.tokens import LiveTokens, encode_sentences

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


def test_bert_features_are_those_of_transformers(bert, tmp_path):
    from transformers import AutoModel, AutoTokenizer

    encoder = load_encoder(str(bert))
    assert encoder.width == 12
    store = encode_sentences(encoder, SENTENCES, tmp_path)
    tokenizer, model = AutoTokenizer.from_pretrained(bert), AutoModel.from_pretrained(bert)
    for number, sentence in enumerate(SENTENCES):
        with torch.no_grad():
            expected = model.eval()(**tokenizer(sentence, return_tensors="pt")).last_hidden_state[0]
        features, mask = store.gather(np.array([number]))
        assert mask.sum() == len(expected)
        torch.testing.assert_close(features[0], expected, atol=2e-3, rtol=2e-3)


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
    for number, tokens in enumerate(encoder.tokenize(SENTENCES)):
        expected = original_clip(state, tokens, heads=2)[:-1]  # before the end-of-text token
        features, mask = store.gather(np.array([number]))
        assert mask.sum() == len(tokens) - 1
        torch.testing.assert_close(features[0], expected, atol=2e-2, rtol=2e-3)


@pytest.mark.parametrize("kind", ["bert", "clip"])
def test_live_tokens_equal_stored_ones(kind, request, tmp_path):
    encoder = load_encoder(str(request.getfixturevalue(kind)))
    store = encode_sentences(encoder, SENTENCES, tmp_path)
    live = LiveTokens(encoder, SENTENCES, train=False)
    rows = np.array([2, 0, 3, 3, 1])
    features, mask = store.gather(rows)
    again, same = live.gather(rows)
    assert torch.equal(mask, same)
    torch.testing.assert_close(features, again, atol=2e-2, rtol=2e-3)
    assert (features * (1 - mask[..., None]) == 0).all()


def test_dropout_is_active_live_in_training_but_not_for_clip(bert, clip):
    for folder, differs in ((bert, True), (clip, False)):
        live = LiveTokens(load_encoder(str(folder)), SENTENCES, train=True)
        one, two = live.gather(np.array([0]))[0], live.gather(np.array([0]))[0]
        assert torch.equal(one, two) is not differs


def test_each_sentence_is_encoded_once(bert, tmp_path, monkeypatch):
    encoder = load_encoder(str(bert))
    encode_sentences(encoder, SENTENCES, tmp_path)
    fresh = load_encoder(str(bert))
    monkeypatch.setattr(type(fresh), "encode", lambda *_: pytest.fail("encoded again"))
    encode_sentences(fresh, SENTENCES, tmp_path)


def test_fingerprint_follows_the_weights(bert, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(bert, copy)
    assert load_encoder(str(copy)).fingerprint == load_encoder(str(bert)).fingerprint
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert load_encoder(str(copy)).fingerprint != load_encoder(str(bert)).fingerprint


def test_random_weights_differ_by_seed_only(bert, clip):
    for folder in (bert, clip):
        plain = load_encoder(str(folder))
        one, same, other = (load_encoder(str(folder), True, seed) for seed in (1, 1, 2))
        assert one.fingerprint == same.fingerprint
        assert len({plain.fingerprint, one.fingerprint, other.fingerprint}) == 3
        tokens, mask = (torch.from_numpy(x) for x in pad_tokens(one.tokenize(SENTENCES)))
        features = [e.encode(tokens, mask.long()) for e in (plain, one, same, other)]
        assert torch.equal(features[1], features[2])
        assert not torch.allclose(features[0], features[1])
        assert not torch.allclose(features[3], features[1])
        assert features[1].shape == features[0].shape


def test_long_sentences_are_cut_at_the_models_limit(bert, tmp_path):
    encoder = load_encoder(str(bert))
    store = encode_sentences(encoder, ["the cup " * 50], tmp_path)
    assert store.gather(np.array([0]))[1].sum() == 20


def test_embedded_minilm():
    encoder = load_encoder("minilm")
    assert encoder.width == 384 and encoder.name == "minilm"
    assert (find_encoder("minilm") / "model.safetensors").is_file()


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
    with pytest.raises(UserError, match="can't be loaded as a text encoder"):
        _ = load_encoder(str(tmp_path)).model
