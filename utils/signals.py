"""Signals that ask a run to stop: it saves its state first and leaves with 128 + the signal."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# SIGUSR1 and SIGUSR2 are what clusters send some time before they take the machine away.
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Stopped(BaseException):
    """A signal came in the middle of something that can be left at once.

    Like `KeyboardInterrupt` no `Exception`, so that nothing on the way takes it for an error.
    """


class StopSignals:
    """Remembers the signal that came; as a context it takes the handlers over, and gives them back.

    A SIGTERM that somebody else listens to is left to them: under SLURM it precedes the signal
    that asks for a requeue. A SIGHUP that is ignored (`nohup`) stays so.
    """

    def __init__(self) -> None:
        self.received = 0  # the signal's number, 0 for none
        self._at_once = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        usual = (signal.SIG_DFL, signal.SIG_IGN)
        for number in STOPPING:
            before = signal.getsignal(number)
            taken = number == signal.SIGTERM and before not in usual
            if not (taken or (number == signal.SIGHUP and before == signal.SIG_IGN)):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number
        if self._at_once:
            self._at_once = False
            raise Stopped

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within, a signal raises `Stopped` wherever the program is."""
        self._at_once = True
        try:
            if self.received:
                raise Stopped
            yield
        finally:
            self._at_once = False
