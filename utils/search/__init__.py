"""Questions to one's own videos, put to trained runs: `load_run` or `load_index` begins it."""

from typing import Any

TOP = 5  # windows a question
NMS_THRESHOLD = 0.5  # windows overlap by at most this IoU


def __getattr__(name: str) -> Any:
    """What brings PyTorch is imported when it is wanted."""
    if name == "load_run":
        from utils.search.search import load_run

        return load_run
    if name in ("load_index", "VideoIndex"):
        from utils.search import index

        return getattr(index, name)
    raise AttributeError(name)
