"""TensorBoard logs, written without a thread, so that a full disk can't end the program."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import summary

from utils.base.errors import warn


class Board:
    """A file of events in a folder; when a write fails it warns and logs nothing more."""

    def __init__(self, folder: Path, purge_step: int | None = None):
        """TensorBoard hides earlier logs from `purge_step` on."""
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder / name
        self._records: RecordWriter | None = None
        with self._ending_on_error():
            folder.mkdir(parents=True, exist_ok=True)
            self._records = RecordWriter(self._path.open("wb"))
        self._write(Event(file_version="brain.Event:2"))
        if purge_step is not None:
            session_start = SessionLog(status=SessionLog.START)
            self._write(Event(session_log=session_start, step=purge_step))

    def add_scalars(self, scalars: dict[str, float | torch.Tensor], step: int) -> None:
        """Log figures by name."""
        figures = (summary.scalar(name, value) for name, value in scalars.items())
        self._write(*(Event(summary=figure, step=step) for figure in figures))

    def add_text(self, name: str, text: str, step: int) -> None:
        """Log a text in Markdown."""
        self._write(Event(summary=summary.text(name, text), step=step))

    def add_image(self, name: str, image: object, step: int) -> None:
        """Log a picture (H, W, 3)."""
        self._write(Event(summary=summary.image(name, image, dataformats="HWC"), step=step))

    def close(self) -> None:
        """Close the file."""
        if self._records is not None:
            self._records.close()

    def _write(self, *events: Event) -> None:
        if self._records is not None:
            with self._ending_on_error():
                for event in events:
                    event.wall_time = time.time()
                    self._records.write(event.SerializeToString())
                self._records.flush()

    @contextmanager
    def _ending_on_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._records = None
            warn(f"{self._path}: {error.strerror}; nothing more is logged for TensorBoard")
