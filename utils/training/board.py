"""TensorBoard logs, written without a thread, so that a full disk can't end the program."""

import os
import socket
import time
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
        self._has_failed = False
        self._write(Event(file_version="brain.Event:2"))
        if purge_step is not None:
            session_start = SessionLog(status=SessionLog.START)
            self._write(Event(session_log=session_start, step=purge_step))

    def add_scalars(self, scalars: dict[str, float | torch.Tensor], step: int) -> None:
        figures = (summary.scalar(name, value) for name, value in scalars.items())
        self._write(*(Event(summary=figure, step=step) for figure in figures))

    def add_text(self, name: str, text: str, step: int) -> None:
        self._write(Event(summary=summary.text(name, text), step=step))

    def add_image(self, name: str, image: object, step: int) -> None:
        """Log a picture (H, W, 3)."""
        self._write(Event(summary=summary.image(name, image, dataformats="HWC"), step=step))

    def _write(self, *events: Event) -> None:
        if self._has_failed:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                records = RecordWriter(file)
                for event in events:
                    event.wall_time = time.time()
                    records.write(event.SerializeToString())
        except OSError as error:
            self._has_failed = True
            warn(f"{self._path}: {error.strerror}; nothing more is logged for TensorBoard")
