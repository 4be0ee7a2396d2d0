"""The environment of a program: required packages, and settings that must precede their import.

Programs import this first when they are run as a file. If packages are missing, it ends the program
with one line that says how to get them.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from utils.base.cores import set_threads

CHECKOUT = Path(__file__).resolve().parents[2]


def missing_packages() -> list[str]:
    """The required packages of requirements.txt that this Python lacks."""
    requirements = CHECKOUT / "requirements.txt"
    if not requirements.is_file():  # packages copied elsewhere without it
        return []
    required, _, _ = requirements.read_text().partition("# Optional")
    names = [line.split("==")[0] for line in required.splitlines() if "==" in line]
    return [name for name in names if find_spec("PIL" if name == "pillow" else name) is None]


def how_to_enter() -> str:
    """The command that activates the environment, or else the one that creates it."""
    environment = CHECKOUT / ".venv"
    if environment.is_dir() and Path(sys.prefix) != environment:
        return f"source {environment}/bin/activate"
    return f"bash {CHECKOUT}/utils/environment.sh"


if missing := missing_packages():
    names = ", ".join(missing[:3]) + ", ..." * (len(missing) > 3)
    print(f"error: {sys.executable} lacks {names}; run: {how_to_enter()}", file=sys.stderr)
    sys.exit(2)

set_threads()
if sys.stderr is None or not sys.stderr.isatty():  # a file: print progress every half minute
    os.environ.update(TQDM_MININTERVAL="30", TQDM_MAXINTERVAL="30", TQDM_DELAY="5")
