"""EgoVLP: golden numbers of both branches and of pixels, frame grids, released checkpoints."""

import json
import subprocess
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.bad_inputs.world import WORDS, Hostile
from tests.utils.features.egovlp_sample import GOLDEN, SMALL, golden, weights, write_checkpoint
from utils.base.errors import UserError
from utils.base.tasks import ROWS_PER_SECOND
from utils.extract_features import main
from utils.features import egovlp_text, image_encoders, video
from utils.features.egovlp import FRAME_SIZE, VideoBranch, load_weights, read_checkpoint
from utils.features.egovlp_text import EgoVLPText
from utils.features.image_encoders import ImageEncoder
from utils.features.image_kinds import KINDS
from utils.features.tokens import LiveTokens, open_encoder
from utils.features.video import Grid, sampled_frames

CLOSE = {"atol": 1e-5, "rtol": 0}


def test_the_video_branch_gives_the_golden_numbers():
    arrays, config = golden("egovlp")
    model = VideoBranch(
        image_size=config["img_size"],
        feature_dim=config["projection"],
        dim=config["embed_dim"],
        patch_size=config["patch_size"],
        frames=config["num_frames"],
        depth=config["depth"],
        heads=config["num_heads"],
        mlp_dim=4 * config["embed_dim"],
    )
    assert {name: list(value.shape) for name, value in model.state_dict().items()} == config["keys"]
    load_weights(model, weights(config["keys"]))
    outputs = {}
    for number, block in enumerate(model.video_model.blocks):
        for name, part in ((".time", block.timeattn), (".space", block.attn), ("", block)):
            keep = lambda *call, key=f"block{number}{name}": outputs.update({key: call[2]})  # noqa: E731
            part.register_forward_hook(keep)
    with torch.no_grad():
        outputs["embedded"] = model.video_model.embed(arrays["input"])
        outputs["feature"] = model(arrays["input"])
        outputs["normed"] = model.video_model(arrays["input"])
        outputs["cls"] = outputs["normed"][:, 0]
        for name, value in outputs.copy().items():
            torch.testing.assert_close(value, arrays[name], **CLOSE)
        torch.testing.assert_close(model(arrays["input6"]), arrays["feature6"], **CLOSE)
        torch.testing.assert_close(model(arrays["input"][:, :1]), arrays["feature1"], **CLOSE)


def test_the_text_branch_gives_the_golden_numbers(tmp_path, monkeypatch):
    arrays, config = golden("egovlp_text")
    monkeypatch.setattr(egovlp_text, "HEAD_DIM", 8)
    encoder = open_encoder(None, str(write_checkpoint(tmp_path / "egovlp.pth")), "none")
    assert encoder.width == 16 and encoder._config == config["bert"]
    with torch.no_grad():
        tokens = encoder.encode_batch(arrays["input_ids"], arrays["attention_mask"])
    torch.testing.assert_close(tokens, arrays["tokens"], **CLOSE)
    torch.testing.assert_close(tokens[:, 0], arrays["cls"], **CLOSE)
    video_feature = golden("egovlp")[0]["feature"]
    similarity = F.cosine_similarity(tokens[:, None, 0], video_feature, dim=-1)
    torch.testing.assert_close(similarity, arrays["similarity"], **CLOSE)


def test_questions_are_tokenized_as_for_bert(tmp_path):
    """With the vocabulary beside the checkpoint, or MiniLM's, which is BERT's."""
    file = str(write_checkpoint(tmp_path / "egovlp.pth", SMALL))
    encoder = EgoVLPText(file)
    encoder._vocabulary = None  # the real one has more tokens than the small model
    numbers, _ = encoder.tokenize(["Where is the CUP?"])
    assert numbers.tolist() == [101, 2073, 2003, 1996, 2452, 1029, 102]
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    tokens = LiveTokens(EgoVLPText(file), ["Where is the CUP?", "who"])
    words = [WORDS[number] for number in tokens.numbers[tokens.offsets[1] :]]
    assert words == ["[CLS]", "who", "[SEP]"]
    features, mask, _ = tokens.gather(np.arange(2))
    assert features.shape == (2, 7, 16) and mask.sum(1).tolist() == [7, 3]
    ablated = [EgoVLPText(file, random_seed=seed) for seed in (1, 2)]
    assert len({encoder.fingerprint for encoder in (*ablated, encoder)}) == 3
    assert not torch.equal(*(LiveTokens(x, ["who"]).gather(np.arange(1)).tokens for x in ablated))


def test_bare_weights_are_read_and_others_refused(tmp_path):
    state, file = weights(SMALL), tmp_path / "bare.pth"
    torch.save(state, file)
    assert ImageEncoder("egovlp", str(file), "cpu")
    for missing in ("vid_proj.0.weight", "txt_proj.1.bias"):
        torch.save({name: value for name, value in state.items() if name != missing}, file)
        with pytest.raises(UserError, match=rf"the checkpoint of EgoVLP .*{missing}"):
            _ = ImageEncoder("egovlp", str(file), "cpu"), EgoVLPText(str(file)).model
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="damaged or cut off"):
        EgoVLPText(str(file))


@pytest.mark.parametrize("name", ["wide", "tall", "square", "unresized"])
def test_pixels_are_prepared_as_published(name):
    arrays, config = golden("egovlp_pixels")
    height, width = config["cases"][name]["frame"]
    y, x = np.mgrid[:height, :width]
    frame = np.stack([7 * x + 3 * y, x * y, (x // 5 + y // 3) * 31], -1) % 256
    frame = torch.from_numpy(frame).movedim(-1, 0)[None].float()
    size = config["cases"][name]["after_resize"]  # the decoder does this
    frame = F.interpolate(frame, size, mode="bilinear").movedim(1, -1)[0].numpy()
    encoder = ImageEncoder("egovlp", "tiny", "cpu")
    encoder._model.image_size = 224
    encoder._model.video_model = Kept()
    encoder.encode(image_encoders._square(frame, encoder.size)[None, None])
    pixels = encoder._model.video_model.frames[0, 0]
    torch.testing.assert_close(pixels[:, ::9, ::9], arrays[name], **CLOSE)
    torch.testing.assert_close(pixels.mean((1, 2)), arrays[f"{name}.mean"], **CLOSE)


class Kept(torch.nn.Module):
    """Keeps the frames that the transformer would be given."""

    def forward(self, frames):
        self.frames = frames
        return torch.zeros(len(frames), 1, 32)


def test_frames_of_rows_are_those_of_the_even_grid(monkeypatch):
    kind = KINDS["egovlp"]
    monkeypatch.setattr(video, "pixels", lambda shown, side: shown.number)
    grids = json.loads((GOLDEN / "sampling_egovlp.json").read_text())
    for case in grids["even_grid_of_CONE_uniform"]:
        shown = [SimpleNamespace(number=n, end=(n + 1) / 30) for n in range(case["video_frames"])]
        monkeypatch.setattr(video, "shown_frames", lambda *_, frames=shown: iter(frames))
        grid = Grid(4 * ROWS_PER_SECOND, kind.offset, FRAME_SIZE)
        numbers = [number for _, number in sampled_frames("", [grid])]
        rows = [numbers[at : at + 4] for at in range(0, len(numbers) - 3, 4)]
        assert len(rows) == case["rows"]
        assert {row: rows[int(row)] for row in case["rows_at"]} == case["rows_at"]


def test_a_video_is_extracted_with_a_released_checkpoint(tmp_path):
    """Nothing out of the file is run, whatever it names; every row is computed."""
    clocked = pytest.importorskip("tests.utils.features.clocked")
    file = write_checkpoint(tmp_path / "egovlp.pth", hostile=Silent())
    words = ["--videos", clocked.BASE, "--type", "egovlp", "--output_dir", tmp_path / "out"]
    main([str(word) for word in (*words, "--encoder", file)])
    rows = torch.load(tmp_path / "out" / "base.pt")
    assert rows.shape == (37, 16) and rows.std(1).min() > 0  # 600 frames: 37 rows of 16, and 8
    assert json.loads((tmp_path / "out" / "feature_card.json").read_text())["type"] == "egovlp"
    sampled = sampled_frames(clocked.BASE, [Grid(7.5, 1.5 / 30, FRAME_SIZE)])
    frames = [image for _, image in islice(sampled, 8, 12)]
    frames = np.stack([image_encoders._square(frame, FRAME_SIZE) for frame in frames])
    encoded = ImageEncoder("egovlp", str(file), "cpu").encode(frames[None])
    torch.testing.assert_close(encoded[0], rows[2], **CLOSE)


class Silent:
    """Runs a command by way of a function that PyTorch does not block by name."""

    def __reduce__(self):
        return subprocess.call, (["touch", "canary"],)


def test_nothing_out_of_a_checkpoint_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = write_checkpoint(tmp_path / "egovlp.pth", hostile=Silent())
    assert read_checkpoint(file).keys() == SMALL.keys()
    with pytest.raises(UserError, match=r"holds a posix\.system"):
        read_checkpoint(write_checkpoint(file, hostile=Hostile()))
    assert not (tmp_path / "canary").exists()
