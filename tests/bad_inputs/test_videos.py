"""Videos of ten containers changed at random: frames of bounded number, or one line of error."""

import random

import pytest

pytest.importorskip("av")

from tests.bad_inputs import world
from tests.bad_inputs.test_mutations import mutate_bytes
from tests.utils.features.clocked import encode, remux
from utils.base.errors import UserError
from utils.features.containers import GAP
from utils.features.video import Grid, frames_at, sampled_frames

SECONDS = 2
KINDS = {
    "a.mp4": None, "a.mov": None, "a.mkv": None, "a.ts": None, "a.flv": None, "a.3gp": None,
    "a.mpg": "mpeg2video", "a.avi": "mpeg4", "a.wmv": "wmv2", "a.webm": "libvpx",
}  # fmt: skip
INPUTS = 8


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    contents = {}
    for name, codec in KINDS.items():
        if codec:
            encode(folder / name, codec, gop=15, seconds=SECONDS)
        else:
            remux(folder / name, keep=lambda time: time < SECONDS)
        contents[name] = (folder / name).read_bytes()
    return contents


def mutate(content: bytes, draw: random.Random) -> bytes:
    """Damage bytes anywhere, or in the header, where sizes and times are."""
    if draw.random() < 0.5:
        return mutate_bytes(content, draw)
    changed = bytearray(content)
    for _ in range(draw.randint(1, 6)):
        changed[draw.randrange(min(len(content), 2000))] = draw.choice([0, 1, 0x7F, 0x80, 0xFF])
    return bytes(changed)


def read(file) -> str:
    """What reading the file comes to, within the bounds on time and memory."""
    try:
        with world.limits(-1):
            rows = sum(1 for _ in sampled_frames(file, [Grid(1.875, 0, 32)], 30))
            frames_at(file, [1.5, 0.2, 1e9], 32, 30)
    except UserError as error:
        return str(error)
    assert rows <= 1.875 * GAP * 60 * SECONDS
    return f"{rows} rows"


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("few", [True, pytest.param(False, marks=[pytest.mark.long])])
def test_changed_videos_are_read_or_refused(videos, tmp_path, name, few):
    start, number = (0, INPUTS) if few else (random.randrange(10**9), 50 * INPUTS)
    for seed in range(start, start + number):
        file = tmp_path / name
        file.write_bytes(mutate(videos[name], random.Random(f"{name} {seed}")))
        outcome = read(file)
        assert "\n" not in outcome and len(outcome) < 500
