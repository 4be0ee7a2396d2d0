"""Which of several processes was lost: each says once a second that it lives, and what it does."""

import json
import socket
import threading
import time
from contextlib import suppress
from datetime import timedelta

import torch.distributed as dist

BEAT_SECONDS = 1.0
SILENCE_SECONDS = 3.0  # a process that says nothing for so long is lost
FOLLOWED = "followed"  # it ended because another process did


class Peers:
    """What the processes of a group say of themselves, kept in the store they met in."""

    def __init__(self, host: str, port: int, name: str, rank: int, size: int):
        """A connection of its own to the store, where `name` is the group's; says that it lives."""
        connection = dist.TCPStore(host, port, timeout=timedelta(seconds=10))
        self.rank = rank
        self.size = size
        self.activity = "starting"
        self._store = dist.PrefixStore(f"peers {name}", connection)
        self._host = socket.gethostname()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat)
        self._thread.start()

    def end(self, reason: str) -> None:
        """Tell the others why this process ends, unless the store has gone."""
        self._ended.set()
        self._thread.join()
        with suppress(RuntimeError):
            self._store.set(f"end {self.rank}", reason)

    def account(self, patience: timedelta) -> str | None:
        """Who did not answer within `patience` or has gone; None if another process says so."""
        try:
            before = [self._read(rank) for rank in range(self.size)]
            time.sleep(SILENCE_SECONDS)
            now = [self._read(rank) for rank in range(self.size)]
        except RuntimeError:
            return f"process 0 of {self.size}, or what launched it, was lost"
        gone, late = {}, {}
        for rank, (beat, reason) in enumerate(now):
            name = f"process {rank} of {self.size}"
            if beat is None:
                late[rank] = f"{name} (it never started)"
                continue
            name += f" (on {beat['host']}, {beat['activity']})"
            if reason not in (None, FOLLOWED):
                gone[rank] = f"{name} ended: {reason}"
            elif reason is None and beat == before[rank][0]:
                gone[rank] = f"{name} was lost"
            elif beat["activity"] != self.activity:
                late[rank] = name
        if self.rank != min(set(range(self.size)) - set(gone or late), default=self.rank):
            return None
        if gone:
            return "; ".join(gone.values())
        minutes = patience / timedelta(minutes=1)
        return f"waited {minutes:g} min for {', '.join(late.values()) or 'another process'}"

    def _beat(self) -> None:
        number = 0
        while threading.main_thread().is_alive() and not self._ended.is_set():
            beat = {"number": number, "host": self._host, "activity": self.activity}
            try:
                self._store.set(f"beat {self.rank}", json.dumps(beat))
            except RuntimeError:  # the store has gone
                return
            number += 1
            self._ended.wait(BEAT_SECONDS)

    def _read(self, rank: int) -> tuple[dict | None, str | None]:
        """The last beat of a process, and why it ended if it did."""
        beat, reason = (
            self._store.get(key).decode() if self._store.check([key]) else None
            for key in (f"beat {rank}", f"end {rank}")
        )
        return (None if beat is None else json.loads(beat)), reason
