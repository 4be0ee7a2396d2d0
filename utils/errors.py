"""How a program ends: a user's mistake is one clear line and exit code 2, never a traceback."""

import os
import sys
from collections.abc import Callable


class UserError(Exception):
    """Something the user can mend; the message says what, where and how, in one line."""


def warn(message: str) -> None:
    """Print one line of warning on stderr, where progress bars and tables are not disturbed."""
    print(f"warning: {message}", file=sys.stderr, flush=True)


def run_program(main: Callable[[], None]) -> None:
    """Run `main` and leave with its exit code: 0, or 2 for a `UserError`, 130 when interrupted."""
    try:
        main()
    except UserError as error:
        line = " ".join(str(error).split())
        print(f"error: {line}", file=sys.stderr, flush=True)
        sys.exit(2)
    except OSError as error:
        # Disk full, no permission, a folder where a file should be: the system's own words do.
        where = f" ({error.filename})" if error.filename else ""
        print(f"error: {error.strerror or error}{where}", file=sys.stderr, flush=True)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        sys.exit(130)


def quiet_libraries() -> None:
    """Keep libraries from talking over our own progress bars, and from calling home."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
