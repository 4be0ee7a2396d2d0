"""How a program ends: a user's mistake is one clear line and exit code 2, never a traceback."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

LAUNCHED = "NAQ_LAUNCHED"  # set by utils/launch.py


class UserError(Exception):
    """Something the user can mend; the message says what, where and how, in one line."""


def warn(message: str) -> None:
    """Print one line of warning on stderr, where progress bars and tables are not disturbed."""
    tqdm.write(f"warning: {message}", file=sys.stderr)  # on a line of its own, above the bars
    sys.stderr.flush()


def in_brief(error: BaseException, most: int = 120) -> str:
    """What a library says of an error, in `most` characters: whole sentences, or else words."""
    lines = str(error).strip().splitlines()
    said = " ".join(lines[0].split()) if lines else type(error).__name__
    if len(said) > most:
        sentences, end, _ = said[:most].rpartition(". ")
        if end:
            said = sentences
        else:
            words = said[: most - 3].rsplit(maxsplit=1)[0] if " " in said[: most - 3] else said
            said = words[: most - 3].rstrip(" ,;:") + "..."
    return said if said.endswith("...") else said.rstrip(".")


def complain(line: str) -> None:
    """Say what is wrong on stderr, or to the launcher: it speaks once for all its processes."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file and LAUNCHED in os.environ:
        Path(file).write_text(json.dumps({"message": line, "timestamp": int(time.time())}))
    else:
        print(f"error: {line}", file=sys.stderr, flush=True)


def run_program(main: Callable[[], None]) -> None:
    """Run `main` and leave with its exit code: 0, or 2 for a `UserError`, 130 when interrupted."""
    try:
        main()
    except UserError as error:
        complain(" ".join(str(error).split()))
        sys.exit(2)
    except OSError as error:
        # Disk full, no permission, a folder where a file should be: the system's own words do.
        where = f" ({error.filename})" if error.filename else ""
        complain(f"{error.strerror or error}{where}")
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        sys.exit(130)


def quiet_libraries() -> None:
    """Keep libraries from talking over our own progress bars, and from calling home."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
