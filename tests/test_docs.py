"""Every command of README.md and docs/*.md runs as written, on tiny data.

A page is one session of a shell: its fenced blocks of bash and Python are run in order, in a folder
like the checkout. SMALLER says what is changed in them, NOT_RUN which commands are only parsed.
"""

import dataclasses
import json
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

import GroundNLQ.options
import ReLER.options
import VSLNet.options
from tests.bad_inputs.world import OTHER_NARRATIONS, TACOS
from tests.simulated import ROOT, refuse, run, succeed
from utils.data.annotations import read_clips

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TINY = "--text_encoder minilm --dim 16 --num_heads 2 --epochs 1"
# Patterns in a line of a block, and what replaces them: small models, no GPU.
SMALLER = {
    r"^bash experiments/quickstart\.sh$": "true",  # was run by the fixture, with --dry
    r"DEVICES=0,1,2,3": "DEVICES=cpu",
    r"^(python utils/(extract_features|ask)\.py .*videos.*)$": r"\1 --encoder tiny",
    r"^(python VSLNet/main\.py --task naq .*)$": rf"\1 {TINY} --max_pos_len 16",
    r"^(\s*bash \S*scripts/(train|finetune)\w*\.sh .*)$": rf"\1 {TINY}",
}
# Starts of commands that can't run here, and why. Their options are parsed.
NOT_RUN = {
    "python utils/download_features.py": "needs the network",
    "python utils/prepare_features.py --features slowfast": "needs features of Ego4D's videos",
    "python utils/prepare_features.py --features internvideo": "needs an LMDB file",
    "bash experiments/challenge_2023.sh": "needs real data; tests/experiments runs it with --dry",
    "python /path/to/naq/": "needs another project; tests/VSLNet/test_programs.py has one",
    "python utils/calibrate_run.py": "needs a trained run; tests/utils/test_calibrate_run.py",
    "python utils/serve.py": "serves until it is interrupted; tests/utils/test_serve.py asks it",
    "python VSLNet/main.py --task nlq_official_v1 --fv egovlp --slurm": "needs a cluster",
}


def blocks(page: Path) -> list[tuple[str, list[str]]]:
    """Language and lines of each block of code: fenced, or indented (`bash`)."""
    blocks_of_page: list[tuple[str, list[str]]] = []
    language = ""  # of the fence that is open
    before = ""
    for line in page.read_text().splitlines():
        if line.startswith("```"):
            language = "" if language else line.removeprefix("```") or "output"
            if language:
                blocks_of_page.append((language, []))
        elif language:
            blocks_of_page[-1][1].append(line)
        elif line.startswith("    "):
            if not before.startswith("    "):
                blocks_of_page.append(("bash", []))
            blocks_of_page[-1][1].append(line.strip())
        before = line
    return blocks_of_page


def commands(lines: list[str]) -> list[str]:
    """Lines of bash, with continued ones joined and comments left out."""
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [re.sub(r"(?<=\S)\s+# .*", "", line) for line in joined]


def is_run(command: str) -> bool:
    return not command.startswith(tuple(NOT_RUN))


def session(page: Path) -> str:
    """A page as one script for a shell."""
    script = ["set -euxo pipefail", 'python() { "$PYTHON" "$@"; }']
    for language, lines in blocks(page):
        if language == "python":
            script += ["python - <<'END'", *lines, "END"]
        elif language == "bash":
            for command in filter(is_run, commands(lines)):
                for pattern, replacement in SMALLER.items():
                    command = re.sub(pattern, replacement, command)
                script.append(command)
    return "\n".join(script)


@pytest.fixture
def checkout(simulated, quickstart, tmp_path) -> Path:
    """A folder with the programs, tiny data and the files that the pages assume."""
    pytest.importorskip("av")
    from tests.utils.test_extract_features import write_video

    folder = tmp_path / "checkout"
    runs = folder / "experiments" / "runs"
    runs.mkdir(parents=True)
    for name in ("VSLNet", "ReLER", "utils"):
        (folder / name).symlink_to(ROOT / name)
    # Links, which programs replace when they write: what all tests share is not changed.
    shutil.copytree(simulated, folder / "data", copy_function=os.symlink)
    shutil.copytree(quickstart, runs / "quickstart-small", copy_function=os.symlink)
    shutil.copy(min((simulated / "features" / "egovlp").glob("*.pt")), folder / "monday.pt")
    shutil.copy(min(quickstart.rglob("*_test_result.json")), folder / "test.json")
    (folder / "tacos").mkdir()
    for split in ("train", "val", "test"):
        (folder / "tacos" / f"{split}.json").write_text(json.dumps(TACOS))
    write_video(folder / "kitchen.mp4", 4)
    narrated = min(read_clips([simulated / "nlq_train_v2.json"])).encode()
    narrations = OTHER_NARRATIONS["ego4d"].replace(b"train0", narrated)
    (folder / "data" / "narration.json").write_bytes(narrations)
    (folder / "videos").mkdir()
    for name in ("monday", "tuesday"):
        write_video(folder / "videos" / f"{name}.mp4", 4)
        subtitles = "1\n00:00:01,000 --> 00:00:02,500\nI take the cup.\n"
        (folder / "videos" / f"{name}.srt").write_text(subtitles)
    return folder


RUN = [page for page in PAGES if len(session(page).splitlines()) > 2]


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_a_page_runs_as_written(checkout, page):
    done = run("bash", "-c", session(page), folder=checkout, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    assert "Traceback" not in done.stderr


ONLY_PARSED = [
    command
    for page in PAGES
    for language, lines in blocks(page)
    if language == "bash"
    for command in commands(lines)
    if not is_run(command)
]


def test_commands_that_are_not_run_are_understood():
    for command in ONLY_PARSED:
        _, program, *options = shlex.split(command)
        program = program.removeprefix("/path/to/naq/")
        if program.endswith(".sh"):  # it reads its options in order, up to --help
            assert program in succeed(program, *options, "--help")
        else:
            line = refuse(program, *options, "--no_such_option")
            assert "unrecognized arguments: --no_such_option;" in line


def test_every_reason_is_needed():
    for start in NOT_RUN:
        assert any(command.startswith(start) for command in ONLY_PARSED), start


OTHERS = {  # options of other programs: ego4d, torchrun, sbatch, tensorboard, pip
    "--output_directory", "--version", "--datasets", "--nproc_per_node", "--use_env", "--requeue",
    "--signal", "--signals_to_handle", "--logdir", "--no",
}  # fmt: skip


def test_every_option_that_a_page_names_exists():
    places = ("utils/*.py", "utils/*.sh", "experiments/*.sh", "tests/utils/training/*.py")
    files = [file for place in places for file in ROOT.glob(place)]
    known = {option for file in files for option in re.findall(r"--\w+", file.read_text())}
    for module in (VSLNet.options, ReLER.options, GroundNLQ.options):
        for field in dataclasses.fields(module.Options):
            known |= {f"--{name}" for name in (field.name, *field.metadata["aliases"])}
        known |= {f"--{ignored.name}" for ignored in getattr(module, "IGNORED", ())}
    for page in PAGES:
        named = set(re.findall(r"(?<![\w-])--[a-z]\w+", page.read_text()))
        assert named <= known | OTHERS | {"--help_all"}, page
