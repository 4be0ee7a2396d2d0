"""VSLNet against the published implementation's numbers, and what must hold for any input."""

import json

import numpy as np
import pytest
import torch

from VSLNet.model import VSLNet, losses, parameter_groups

STAGES = ("video_affine", "encoded_video", "encoded_query", "cq_attention", "cq_concat")


class Golden:
    """Inputs, weights and expected numbers of one reference file."""

    def __init__(self, file):
        content = dict(np.load(file))
        self.numbers = {
            key: torch.from_numpy(value) for key, value in content.items() if "/" not in key
        }
        self.weights = self._under(content, "weight/")
        self.gradients = self._under(content, "grad/")
        rnn = "word_ids" in content
        self.model = VSLNet(
            video_dim=24,
            text_dim=None if rnn else 768,
            dim=16,
            num_heads=4,
            max_pos_len=32,
            predictor="rnn" if rnn else "bert",
            word_vectors=self.numbers.get("word_vectors"),
            characters=9,
            char_dim=8,
            padding="published",
        )
        self.model.load_state_dict(self.weights)
        self.model.eval()
        self.text = self.numbers["word_ids" if rnn else "text_features"]
        self.characters = self.numbers.get("char_ids")

    @staticmethod
    def _under(content, prefix):
        return {
            key.removeprefix(prefix): torch.from_numpy(value)
            for key, value in content.items()
            if key.startswith(prefix)
        }

    def predict(self):
        n = self.numbers
        return self.model(
            n["video_features"], n["video_mask"], self.text, n["query_mask"], self.characters
        )


def check_predictions(out, expected):
    torch.testing.assert_close(
        out.highlight_logits.sigmoid(), expected["highlight_scores"], rtol=0, atol=1e-4
    )
    for name in ("start_logits", "end_logits"):
        torch.testing.assert_close(getattr(out, name), expected[name], rtol=0, atol=1e-4)


def check_gradients(model, gradients):
    parameters = dict(model.named_parameters())
    for name, expected in gradients.items():
        error = (parameters[name].grad - expected).abs().max()
        # Some gradients (a key's bias under a softmax) are 0 but for rounding.
        assert error <= 1e-4 * expected.abs().max() + 1e-6, name


@pytest.fixture(params=["transformer", "rnn"])
def reference(request, golden):
    return Golden(golden / f"vslnet_{request.param}.npz")


def test_outputs_of_every_stage_are_the_published_ones(reference):
    n, model = reference.numbers, reference.model
    affine = model.video_affine(n["video_features"])
    video = model.encode_video(n["video_features"], n["video_mask"])
    query = model.encode_query(reference.text, n["query_mask"], reference.characters)
    attended = model.cq_attention(video, query, n["video_mask"], n["query_mask"])
    joined = model.cq_concat(attended, query, n["query_mask"])
    for stage, value in zip(STAGES, (affine, video, query, attended, joined), strict=True):
        torch.testing.assert_close(value, n[stage], rtol=0, atol=1e-4, msg=stage)
    out = reference.predict()
    check_predictions(out, n)


def test_losses_and_gradients_are_the_published_ones(reference):
    n = reference.numbers
    out = losses(
        reference.predict(),
        n["start_labels"],
        n["end_labels"],
        n["highlight_labels"].float(),
        n["video_mask"],
    )
    for mine, name in ((out.total, "total"), (out.span, "span"), (out.highlight, "highlight")):
        torch.testing.assert_close(mine, n[f"{name}_loss"], rtol=1e-4, atol=0)
    out.total.backward()
    trained = {name for name, p in reference.model.named_parameters() if p.requires_grad}
    assert trained == set(reference.gradients)
    check_gradients(reference.model, reference.gradients)


def test_unknown_words_and_queries_of_one_word_give_the_published_numbers(golden):
    reference = Golden(golden / "vslnet_rnn.npz")
    changed = {
        key: torch.from_numpy(value)
        for key, value in np.load(golden / "extra" / "vslnet_rnn_unknown_words.npz").items()
    }
    n = reference.numbers = reference.numbers | changed
    reference.text, reference.characters = n["word_ids"], n["char_ids"]
    out = reference.predict()
    check_predictions(out, n)
    losses(
        out, n["start_labels"], n["end_labels"], n["highlight_labels"].float(), n["video_mask"]
    ).total.backward()
    gradients = {k.removeprefix("grad/"): v for k, v in changed.items() if k.startswith("grad/")}
    assert len(gradients) >= 3
    check_gradients(reference.model, gradients)


def schema_shapes(golden, difference):
    schema = json.loads((golden / "schema_vslnet.json").read_text())
    shapes = schema["state_dict"] | schema["differences"][difference]
    return {k: v for k, v in shapes.items() if not k.startswith("embedding_net.embedder.")}


@pytest.mark.parametrize(("width", "units"), [(256, 128), (2304, 128), (256, 512), (2304, 512)])
def test_keys_and_shapes_are_the_published_ones(golden, width, units):
    with torch.device("meta"):
        model = VSLNet(video_dim=width, text_dim=768, max_pos_len=units)
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    assert shapes == schema_shapes(golden, f"dim{width}_units{units}")


def test_weight_decay_is_that_of_the_published_groups(golden):
    schema = json.loads((golden / "schema_vslnet.json").read_text())
    model = VSLNet(video_dim=256, text_dim=768)
    names = {id(p): name for name, p in model.named_parameters()}
    decayed, exempt = parameter_groups(model)
    assert decayed["weight_decay"] == 0.01 and exempt["weight_decay"] == 0
    assert {names[id(p)] for p in decayed["params"]} == set(schema["weight_decay_0.01"])
    assert {names[id(p)] for p in exempt["params"]} == set(schema["no_weight_decay"])


def small(**changes):
    torch.manual_seed(0)
    model = VSLNet(**{"video_dim": 6, "text_dim": 5, "dim": 8, "num_heads": 2, **changes})
    return model.eval()


def inputs(batch=3, units=10, tokens=4):
    generator = torch.Generator().manual_seed(1)
    video = torch.randn(batch, units, 6, generator=generator)
    text = torch.randn(batch, tokens, 5, generator=generator)
    video_mask, text_mask = torch.ones(batch, units), torch.ones(batch, tokens)
    video_mask[1, 7:] = 0
    text_mask[2, 2:] = 0
    return video, video_mask, text, text_mask


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("predictor", ["bert", "rnn"])
def test_mixed_precision_is_close_and_trains(dtype, predictor):
    model, batch = small(predictor=predictor), inputs()
    start, end = torch.tensor([0, 1, 2]), torch.tensor([1, 2, 3])
    exact = model(*batch)
    with torch.autocast("cpu", dtype):
        mixed = model(*batch)
        total = losses(model.train()(*batch), start, end, batch[1], batch[1]).total
    inside = batch[1] > 0
    torch.testing.assert_close(
        mixed.start_logits[inside], exact.start_logits[inside], rtol=0.1, atol=0.1
    )
    assert total.dtype == torch.float32
    total.backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
