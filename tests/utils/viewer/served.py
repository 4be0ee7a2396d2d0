"""An index of three sources, and its page served as a user serves it."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from tests.simulated import ROOT
from tests.utils.search.index_sample import make_run, make_videos
from utils.index_videos import main


def make_index(folder: Path) -> Path:
    """A web video, one that browsers can't play, and features alone; returns the index."""
    run = make_run(folder / "runs")
    videos = make_videos(folder / "videos")
    (videos / "broken.mp4").unlink()
    (videos / "monday.mp4").rename(videos / "monday <b>.mp4")
    shutil.copy(videos / "tuesday.webm", videos / "secret.webm")
    shutil.move(videos / "secret.webm", folder / "secret.webm")
    (folder / "features").mkdir()
    torch.save(torch.randn(20, 32), folder / "features" / "friday.pt")
    words = [videos, "--index", folder / "index", "--checkpoint", run, "--encoder", "tiny"]
    main(list(map(str, [*words, "--features", folder / "features", "--device", "cpu"])))
    return folder / "index"


@contextmanager
def serving(index: Path, *options: object) -> Iterator[str]:
    """The address of the served page, with its token."""
    command = [sys.executable, ROOT / "utils/serve.py", "--index", index, "--port", 0, *options]
    process = subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        for line in process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:\d+/\S+/", line):
                yield found.group()
                break
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate()
