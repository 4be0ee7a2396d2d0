"""Find out which process was lost: each reports once a second that it runs, and what it does."""

import json
import socket
import threading
import time
from contextlib import suppress
from datetime import timedelta

import torch.distributed as dist

BEAT_SECONDS = 1.0
SILENCE_SECONDS = 3.0  # a process that does not report for so long is lost
FOLLOWED = "followed"  # reason: another process ended first


class Peers:
    """The reports of a group's processes, in the store that the group was formed with."""

    def __init__(self, host: str, port: int, name: str, rank: int, size: int):
        """Connect to the store and start to report, as one of the group `name`."""
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
        """Report why this process ends, unless the store is lost."""
        self._ended.set()
        self._thread.join()
        with suppress(RuntimeError):
            self._store.set(f"end {self.rank}", reason)

    def account(self, patience: timedelta) -> str | None:
        """Which processes ended, or were waited for longer than `patience`.

        None if another process reports it: the first one that is neither.
        """
        try:
            earlier_beats = [self._read(rank)[0] for rank in range(self.size)]
            time.sleep(SILENCE_SECONDS)
            reports = [self._read(rank) for rank in range(self.size)]
        except RuntimeError:
            return f"process 0 of {self.size}, or what launched it, was lost"
        lost_peers, late_peers = {}, {}
        for rank, (beat, reason) in enumerate(reports):
            name = f"process {rank} of {self.size}"
            if beat is None:
                late_peers[rank] = f"{name} (it never started)"
                continue
            name += f" (on {beat['host']}, {beat['activity']})"
            if reason not in (None, FOLLOWED):
                lost_peers[rank] = f"{name} ended: {reason}"
            elif reason is None and beat == earlier_beats[rank]:
                lost_peers[rank] = f"{name} was lost"
            elif beat["activity"] != self.activity:
                late_peers[rank] = name
        waiting = set(range(self.size)) - set(lost_peers or late_peers)
        if self.rank != min(waiting, default=self.rank):
            return None
        if lost_peers:
            return "; ".join(lost_peers.values())
        minutes = patience / timedelta(minutes=1)
        return f"waited {minutes:g} min for {', '.join(late_peers.values()) or 'another process'}"

    def _beat(self) -> None:
        number = 0
        while threading.main_thread().is_alive() and not self._ended.is_set():
            beat = {"number": number, "host": self._host, "activity": self.activity}
            try:
                self._store.set(f"beat {self.rank}", json.dumps(beat))
            except RuntimeError:  # the store is lost
                return
            number += 1
            self._ended.wait(BEAT_SECONDS)

    def _read(self, rank: int) -> tuple[dict | None, str | None]:
        """The last report of a process, and the reason why it ended; None if there is none."""
        beat, reason = (
            self._store.get(key).decode() if self._store.check([key]) else None
            for key in (f"beat {rank}", f"end {rank}")
        )
        return (None if beat is None else json.loads(beat)), reason
