"""Text encoders: one interface, the features of the original models, stores that fit."""

import json

import numpy as np
import pytest
import torch

from tests.bad_inputs.world import WORDS
from utils.base.errors import UserError
from utils.features.text_encoders import TextEncoder
from utils.features.tokens import EncoderText, LiveTokens, encode_sentences

SENTENCES = ["where is the cup?", "#c c picks the cup?", "where?", "the the the cup?"]


def features_of(encoder, sentences=SENTENCES):
    """Token features (B, Q, width) of all sentences, from a folder or an encoder."""
    if not isinstance(encoder, TextEncoder):
        encoder = TextEncoder(str(encoder))
    return LiveTokens(encoder, sentences).gather(np.arange(len(sentences))).tokens


def test_clip_features_are_projected_states_before_the_last_token(clip, tmp_path):
    from transformers import CLIPModel

    encoder, model = TextEncoder(str(clip)), CLIPModel.from_pretrained(clip).eval()
    assert encoder.is_clip and encoder.width == 10
    store = encode_sentences(encoder, SENTENCES, tmp_path)
    numbers, offsets = encoder.tokenize(SENTENCES)
    for number, tokens in enumerate(np.split(numbers, offsets[1:-1])):
        with torch.no_grad():
            states = model.text_model(torch.from_numpy(tokens)[None]).last_hidden_state
            expected = model.text_projection(states)[0, :-1]
        features, mask, _ = store.gather(np.array([number]))
        assert mask.sum() == len(tokens) - 1
        torch.testing.assert_close(features[0], expected, atol=2e-2, rtol=2e-3)


def test_a_clip_of_text_alone_gives_the_same(clip, clip_copy):
    from transformers import CLIPTextModelWithProjection

    encoder = TextEncoder(str(clip))
    for file in clip_copy.glob("*config.json"):
        if "tokenizer" not in file.name:
            file.unlink()
    assert isinstance(encoder.model, CLIPTextModelWithProjection)
    encoder.model.save_pretrained(clip_copy)
    assert TextEncoder(str(clip_copy)).width == 10
    torch.testing.assert_close(features_of(clip_copy), features_of(encoder))


def test_queries_are_cut_to_the_limit_and_padded_by_the_encoder(bert, tmp_path):
    text = EncoderText(TextEncoder(str(bert)), False, tmp_path, limit=4, padding=2)
    query = text.open(SENTENCES, "cpu", train=False)(np.array([0, 2]))
    assert query.tokens.shape == (2, 4, 12) and query.mask.tolist() == [[1] * 4, [1] * 4]
    whole = text._replace(limit=None).open(SENTENCES, "cpu", train=False)
    tokens, mask, _ = whole(np.array([1, 2]))
    padding = tokens[1, int(mask[1].sum()) :].any(1)
    assert padding[:2].all() and not padding[2:].any()


def test_dropout_is_active_live_in_training_but_not_for_clip(bert, clip):
    for folder, differs in ((bert, True), (clip, False)):
        live = LiveTokens(TextEncoder(str(folder)), SENTENCES, train=True)
        one, two = (live.gather(np.array([0])).tokens for _ in range(2))
        assert torch.equal(one, two) is not differs


def test_many_batches_give_what_one_gives(bert, tmp_path, monkeypatch):
    encoder = TextEncoder(str(bert))
    sentences = [" ".join(["the cup"] * n) for n in (3, 1, 4, 2, 7, 5, 6)]
    whole = encode_sentences(encoder, sentences, tmp_path / "one")
    monkeypatch.setattr("utils.features.tokens.TOKENS_AT_ONCE", 20)
    monkeypatch.setattr("utils.features.text_encoders.SENTENCES_AT_ONCE", 2)
    parts = encode_sentences(encoder, sentences, tmp_path / "many")
    assert parts.offsets.tolist() == whole.offsets.tolist()
    np.testing.assert_allclose(parts.tokens, whole.tokens, atol=2e-3)


@pytest.mark.filterwarnings("error")
def test_features_that_do_not_fit_half_precision_are_refused(bert, tmp_path, monkeypatch):
    encoder = TextEncoder(str(bert))
    huge = torch.full((4, 20, 12), 1e6)
    monkeypatch.setattr(TextEncoder, "encode_batch", lambda self, ids, _: huge[:, : ids.shape[1]])
    with pytest.raises(UserError, match="too large to be stored"):
        encode_sentences(encoder, SENTENCES, tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_fingerprint_follows_what_features_follow(bert, bert_copy):
    original = TextEncoder(str(bert)).fingerprint
    (bert_copy / "modules.json").write_text("[]")  # of no matter
    assert TextEncoder(str(bert_copy)).fingerprint == original
    for file in ("model.safetensors", "tokenizer.json"):
        content = (bert_copy / file).read_bytes()
        (bert_copy / file).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert TextEncoder(str(bert_copy)).fingerprint != original
        (bert_copy / file).write_bytes(content)


def test_random_weights_differ_by_seed_only(bert, clip):
    for folder in (bert, clip):
        encoders = [TextEncoder(str(folder), seed) for seed in (None, 1, 1, 2)]
        plain, one, same, other = (encoder.fingerprint for encoder in encoders)
        assert one == same and len({plain, one, other}) == 3
        before = torch.random.get_rng_state()
        plain, one, same, other = map(features_of, encoders)
        assert torch.equal(torch.random.get_rng_state(), before)
        assert torch.equal(one, same) and one.shape == plain.shape
        assert not torch.allclose(one, plain) and not torch.allclose(one, other)


def test_long_sentences_are_cut_at_the_models_limit(bert, bert_copy):
    long = ["the cup " * 50]
    assert TextEncoder(str(bert)).tokenize(long)[1].tolist() == [0, 20]
    file = bert_copy / "tokenizer_config.json"
    # As of RoBERTa, where not all positions are for tokens.
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_max_length": 18}))
    numbers, offsets = TextEncoder(str(bert_copy)).tokenize(long)
    assert offsets.tolist() == [0, 18]
    assert (numbers[0], numbers[-1]) == (WORDS.index("[CLS]"), WORDS.index("[SEP]"))


def test_the_encoder_of_a_translator_is_used(bert_copy):
    from transformers import T5Config, T5EncoderModel, T5Model

    config = T5Config(
        vocab_size=len(WORDS), d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2,
        decoder_start_token_id=0,
    )  # fmt: skip
    T5Model(config).save_pretrained(bert_copy)
    numbers, _ = TextEncoder(str(bert_copy)).tokenize(SENTENCES[:1])
    with torch.no_grad():
        plain = T5EncoderModel.from_pretrained(bert_copy).eval()(torch.from_numpy(numbers)[None])
    torch.testing.assert_close(features_of(bert_copy, SENTENCES[:1]), plain.last_hidden_state)


@pytest.mark.parametrize("kind", ["bert", "clip"])
def test_features_may_be_those_of_a_layer(kind, request, tmp_path):
    folder = request.getfixturevalue(kind)
    whole, words = TextEncoder(str(folder)), TextEncoder(f"{folder}@0")
    assert whole.fingerprint != words.fingerprint
    assert words.width == whole.model.config.hidden_size
    assert words.fingerprint != TextEncoder(f"{folder}@1").fingerprint
    # The same word at the same place, whatever follows it.
    sentences = ["where is the cup?", "where?"]
    assert torch.equal(*features_of(words, sentences)[:, 1])
    with pytest.raises(UserError, match="@9: its last layer is 2"):
        features_of(f"{folder}@9")
