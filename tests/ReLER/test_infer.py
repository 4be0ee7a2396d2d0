"""The published model's windows through our prediction, whatever clips are predicted together.

Parts are cut from the padded length, so a window depends on the longest clip beside it. Published
code pads to the longest clip of its batch, ours to the longest of the split.
"""

import numpy as np
import pytest
import torch

from ReLER.data import Inputs
from ReLER.infer import predict
from ReLER.options import SCALES, Options
from tests.ReLER.conftest import make_records
from utils.training.processes import Processes

DURATIONS = np.array([90.0, 61.0, 44.0])  # seconds


@pytest.fixture(scope="session")
def alone(golden):
    """Outputs of the published model for each sample by itself."""
    with np.load(golden / "extra" / "reler_batching.npz") as file:
        return {name.removeprefix("alone/"): file[name] for name in file.files}


def one_sample(inputs, sample):
    """A batch of one sample, cut to its own numbers of units and tokens."""
    video, mask, text, text_mask = (x[sample : sample + 1] for x in inputs)
    units, tokens = int(mask.sum()), int(text_mask.sum())
    return video[:, :units], mask[:, :units], text[:, :tokens], text_mask[:, :tokens]


def published_split(inputs, samples):
    """Some of the published samples as a split of so many clips of one query each."""
    video, mask, text, text_mask = (x[samples] for x in inputs)
    lengths = mask.sum(1).long().numpy()
    times = np.tile([1.0, 2.0], (len(samples), 1))
    records = make_records(np.arange(len(samples)), lengths / DURATIONS[samples], lengths, times)

    class PublishedSplit:
        width = video.shape[2]

        def inputs(self, rows, device):
            longest = lengths.max()
            return Inputs(video[rows, :longest], mask[rows, :longest], text[rows], text_mask[rows])

        def units(self, rows):
            return lengths[rows]

    split = PublishedSplit()
    split.records = records
    return split


def seconds(starts, ends, samples, lengths):
    """(R, 5, 2) windows in seconds of published spans."""
    unit = (DURATIONS[samples] / lengths)[:, None]
    return np.stack((starts * unit, (ends + 1) * unit), 2)


def predicted(model, data, **changes):
    options = Options(task="nlq", fv="egovlp", **changes)
    return predict(model, data, options, Processes(0, 1, torch.device("cpu")))


@pytest.mark.parametrize("sample", [0, 1, 2])
@pytest.mark.parametrize("parts", SCALES)
def test_a_sample_alone_is_cut_by_its_own_length(published_model, inputs, alone, sample, parts):
    batch = one_sample(inputs, sample)
    outputs = published_model(*batch, parts)
    for name, found in {
        "start_logits": outputs.start_logits,
        "end_logits": outputs.end_logits,
        "NPM_scores": outputs.part_logits.sigmoid(),
    }.items():
        expected = alone[f"{sample}/N{parts}/{name}"]
        np.testing.assert_allclose(found[0].detach(), expected, rtol=1e-5, atol=1e-4, err_msg=name)
    units = batch[0].shape[1]
    size = -(-units // parts)
    cut = [min(size, units - first) for first in range(0, units, size)]
    assert cut == alone[f"{sample}/N{parts}/parts"].tolist()


@pytest.mark.parametrize("eval_bsz", [1, 2, 64])
def test_a_split_gets_the_windows_of_one_published_batch(
    published_model, inputs, reference, eval_bsz
):
    samples = np.arange(3)
    data = published_split(inputs, samples)
    windows, scores = predicted(published_model, data, eval_bsz=eval_bsz)
    starts, ends = (reference[f"merged_top5_{name}"].numpy() for name in ("start", "end"))
    expected = seconds(starts, ends, samples, data.records.num_frames)
    np.testing.assert_allclose(windows, expected, rtol=1e-6)
    np.testing.assert_allclose(scores, reference["merged_top5_score"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sample", [0, 1, 2])
def test_a_split_of_one_clip_gets_the_windows_of_that_clip_alone(
    published_model, inputs, reference, alone, sample
):
    samples = np.array([sample])
    data = published_split(inputs, samples)
    windows, _ = predicted(published_model, data)
    starts, ends = (alone[f"{sample}/merged_top5_{name}"][None] for name in ("start", "end"))
    expected = seconds(starts, ends, samples, data.records.num_frames)
    np.testing.assert_allclose(windows, expected, rtol=1e-6)
    # With a longer clip beside it other windows are best, though the first one may stay.
    beside = np.stack([reference[f"merged_top5_{n}"][sample].numpy() for n in ("start", "end")])
    assert (beside == np.concatenate((starts, ends))).all() == (sample == 0)
