"""Labels to losses to gradients to steps: the published numbers."""

import json

import numpy as np
import pytest
import torch

from GroundNLQ.losses import losses, next_normaliser
from GroundNLQ.points import label_points, make_points
from GroundNLQ.train import AveragedModel, cosine_schedule, parameter_groups

WINDOWS = {  # in rows, of each clip
    "train": None,
    "train_nopos": None,
    "train_two": [[[20.0, 26.0], [60.0, 140.0]], [[3.73994889, 17.76475721], [np.nan, np.nan]]],
}
CLIPS = {"train": [0, 1, 2], "train_nopos": [1], "train_two": [0, 2]}
LENGTHS = np.array([256, 150, 21])


def batch_of(reference, clips):
    """Inputs of some of the clips, with text padded to the longest of their queries."""
    tokens = int(reference["query_lengths"][clips].max())
    return (
        reference["video_features"][clips],
        reference["video_mask"][clips].float(),
        reference["text_features"][clips, :tokens],
        reference["query_mask"][clips, :tokens].float(),
    )


def labels_of(reference, name):
    windows = WINDOWS[name] or reference["windows_grid"][CLIPS[name], None].tolist()
    return label_points(make_points(256, 4), np.array(windows), LENGTHS[CLIPS[name]], False)


def losses_of(model, reference, name, normaliser):
    """Losses of a batch and its normaliser."""
    positive, offsets = map(torch.from_numpy, labels_of(reference, name))
    normaliser = next_normaliser(torch.tensor(normaliser).double(), int(positive.sum()))
    grounding = model(*batch_of(reference, CLIPS[name]))
    return losses(grounding, positive, offsets, normaliser.float()), normaliser


@pytest.mark.parametrize("name", WINDOWS)
def test_losses_are_the_published_ones(small, reference, name):
    loss, normaliser = losses_of(small(), reference, name, 200.0)
    positive, offsets = labels_of(reference, name)
    valid = torch.cat([reference[f"level{level}/mask"] for level in range(4)], 1)[CLIPS[name]]
    expected = reference[f"{name}/cls_targets"].bool() & valid
    assert torch.equal(torch.from_numpy(positive), expected)
    torch.testing.assert_close(
        torch.from_numpy(offsets)[expected], reference[f"{name}/reg_targets"].float()[expected]
    )
    assert normaliser.item() == pytest.approx(reference[f"{name}/normaliser_after"].item())
    for part, value in zip(("final", "cls", "reg"), loss, strict=True):
        assert value.item() == pytest.approx(reference[f"{name}/{part}_loss"].item(), rel=1e-4)


def test_gradients_and_a_step_are_the_published_ones(small, reference):
    trained = AveragedModel(small())
    model = trained.model
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.05), lr=1e-3)
    loss, normaliser = losses_of(model, reference, "train", 200.0)
    loss.total.backward()
    norms = {name: p.grad.norm().item() for name, p in model.named_parameters()}
    for name, norm in norms.items():
        expected = reference[f"grad_norm/{name}"].item()
        assert norm == pytest.approx(expected, rel=1e-4, abs=1e-5), name
    for name, parameter in model.named_parameters():
        if f"grad/{name}" in reference:
            expected = reference[f"grad/{name}"]
            tolerance = 1e-4 * expected.abs().max().item()
            torch.testing.assert_close(parameter.grad, expected, rtol=0, atol=tolerance)
    total = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    assert total.item() == pytest.approx(reference["grad_total_norm"].item(), rel=1e-4)
    optimizer.step()
    trained.follow(normaliser)
    assert_weights(trained, reference, "step1", "ema1")


def assert_weights(trained, reference, weights, average):
    for prefix, model in ((weights, trained.model), (average, trained.average)):
        state = model.state_dict()
        names = [name for name in reference if name.startswith(f"{prefix}/")]
        assert names
        for name in names:
            value = state[name.removeprefix(f"{prefix}/")]
            torch.testing.assert_close(value, reference[name], rtol=0, atol=1e-5)


def test_eight_steps_are_the_published_ones(small, reference):
    trained = AveragedModel(small())
    model = trained.model.train()
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.05), lr=1e-3)
    for row in reference["trajectory/table"].tolist():
        step, rate, classification, regression, normaliser, norm = row
        assert cosine_schedule(int(step), 4, 8, 1e-3) == pytest.approx(rate, abs=1e-12)
        for group in optimizer.param_groups:
            group["lr"] = rate
        clips = [0, 2] if step % 2 == 0 else [1]
        windows = reference["windows_grid"][clips, None].numpy()
        labels = label_points(make_points(256, 4), windows, LENGTHS[clips], False)
        positive, offsets = map(torch.from_numpy, labels)
        now = next_normaliser(trained.normaliser, int(positive.sum()))
        assert now.item() == pytest.approx(normaliser)
        loss = losses(model(*batch_of(reference, clips)), positive, offsets, now.float())
        assert loss.classification.item() == pytest.approx(classification, rel=1e-4)
        assert loss.regression.item() == pytest.approx(regression, rel=1e-4)
        loss.total.backward()
        found_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        assert found_norm.item() == pytest.approx(norm, rel=1e-4)
        optimizer.step()
        optimizer.zero_grad()
        trained.follow(now)
    assert_weights(trained, reference, "trajectory/end", "trajectory/ema")


def test_parameter_groups_and_schedules_are_the_published_ones(small, schema, folder):
    model = small()
    names = {parameter: name for name, parameter in model.named_parameters()}
    decayed, exempt = parameter_groups(model, 0.05)
    assert [names[p] for p in decayed["params"]] == schema["weight_decay_small"]
    assert [names[p] for p in exempt["params"]] == sorted(
        set(names.values()) - set(schema["weight_decay_small"])
    )
    training = json.loads((folder / "training_groundnlq.json").read_text())
    for schedule in training["learning_rate"]["schedules"].values():
        steps = schedule["iterations_per_epoch"]
        warmup = schedule["warmup_epochs"] * steps
        total = warmup + schedule["epochs"] * steps
        for step, rate in schedule["rows"]:
            scheduled = cosine_schedule(step, warmup, total, schedule["base_lr"])
            assert scheduled == pytest.approx(rate, rel=1e-9, abs=1e-15)
