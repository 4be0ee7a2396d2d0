"""docs/inputs.md: what programs say of damaged and odd inputs, with the memory and time it took.

python -m tests.bad_inputs.page    # write the page from the cases of the tests
"""

import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.bad_inputs import world
from tests.bad_inputs.test_cases import CASES
from tests.utils.features import clocked
from utils.base.errors import UserError
from utils.features.video import Grid, sampled_frames

PAGE = Path(__file__).resolve().parents[2] / "docs" / "inputs.md"
HEAD = """# Inputs from outside

What programs say of damaged and odd inputs: one line and exit code 2, or a warning.
`tests/bad_inputs/page.py` writes this page, from the cases of the tests. Memory is what a case
takes on top of the program loaded; time is that of one core of a shared machine, and includes
reading whatever else the program needs.

| input | program | what it says | MB | s |
|---|---|---|--:|--:|
"""


def videos(folder: Path) -> Iterator[tuple[str, Path]]:
    """Odd videos, and what they are."""
    yield "a bit flipped", clocked.BASE.with_name("one_bit.mp4")
    yield "a lost packet", clocked.without_a_frame(folder / "lost.ts")
    yield "two recordings joined, the clock begins again", clocked.BASE.with_name("joined.mpg")
    yield (
        "the clock jumps by 23 days",
        clocked.remux(folder / "jump.mkv", lambda at: at + (23 * 86400 if at > 9.9 else 0)),
    )
    yield (
        "30 seconds without a frame",
        clocked.remux(folder / "gap.ts", lambda at: at + (30 if at > 9.9 else 0)),
    )
    yield "a raw stream", clocked.remux(folder / "raw.h264")
    concat = folder / "concat.mp4"
    concat.write_text("ffconcat version 1.0\nfile jump.mkv\n")
    yield "text that names other files", concat
    unfinished = folder / "unfinished.mp4"
    unfinished.write_bytes(clocked.BASE.read_bytes()[:48] + bytes(1000))
    yield "a recording that was not finished", unfinished


def read_video(file: Path, messages: list[str]) -> None:
    """Read a video; what is printed goes into `messages`."""
    import utils.features.containers as containers

    containers.warn = messages.append
    try:
        rows = sum(1 for _ in sampled_frames(file, [Grid(1.875, 0.5 / 1.875, 48)]))
        messages.append(f"{rows} rows")
    except UserError as error:
        messages.append(str(error))


def measured(act: Callable[[], object]) -> tuple[object, float, float]:
    """What `act` returns, the MB it took at most, and the seconds."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before, began = _peak(), time.monotonic()
    value = act()
    return value, _peak() - before, time.monotonic() - began


def _peak() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def row(what: str, program: str, message: str, memory: float, seconds: float) -> str:
    """A line of the table."""
    words = message.replace("|", "\\|").replace("`", "'")
    return f"| {what} | {program} | `{words}` | {memory:.0f} | {seconds:.1f} |\n"


def main() -> None:
    """Run every case and write the page."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    lines = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = world.make(folder / "whole")
        for case in CASES:
            root = shutil.copytree(whole, folder / "data")
            case.damage(root)
            message, memory, seconds = measured(partial(world.run, case.program, root))
            words = str(message).replace(str(root), "DATA").replace(str(whole), "OTHER")
            lines.append(row(case.what, case.program, words, memory, seconds))
            shutil.rmtree(root)
            print(lines[-1], end="", file=sys.stderr, flush=True)
        for what, file in videos(folder):
            messages: list[str] = []
            _, memory, seconds = measured(partial(read_video, file, messages))
            words = "; ".join(messages).replace(f"{file.parent}/", "")
            lines.append(row(what, "utils/extract_features.py", words, memory, seconds))
    PAGE.write_text(HEAD + "".join(lines))


if __name__ == "__main__":
    main()
