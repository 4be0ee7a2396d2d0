"""Questions to one's own video, put to trained runs; `load_run` begins it."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "load_run":  # imported when asked for: it brings PyTorch
        from utils.search.search import load_run

        return load_run
    raise AttributeError(name)
