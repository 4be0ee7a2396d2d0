"""Questions to one's own video, put to trained runs; `load_run` begins it."""

from typing import Any

TOP = 5  # windows a question
NMS_THRESHOLD = 0.5  # windows overlap by at most this IoU


def __getattr__(name: str) -> Any:
    if name == "load_run":  # imported when wanted: it brings PyTorch
        from utils.search.search import load_run

        return load_run
    raise AttributeError(name)
