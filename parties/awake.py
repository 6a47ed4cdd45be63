"""A clock that counts the seconds in which this process could run: its own pause is not held against its peers.

A process that was stopped, or a machine that was suspended or out of breath, hears nothing meanwhile: for it every peer
seems silent. A beat tells such a pause from a wait.
"""

import logging
import threading
import time

BEAT_SECONDS = 0.25
PAUSE_SECONDS = 2.0
"""A beat later than this is a pause."""

_LOG = logging.getLogger("parties")


class AwakeClock:
    """Safe for several threads."""

    def __init__(self) -> None:
        self._lost = 0.0
        self._last = time.monotonic()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        threading.Thread(target=self._beat, name="beat", daemon=True).start()

    def __call__(self) -> float:
        """Monotonic seconds without pauses."""
        with self._lock:
            now = time.monotonic()
            pause, self._last = now - self._last, now
            if pause > PAUSE_SECONDS:
                self._lost += pause
                _LOG.warning("this server stood still for %.1f s: it was stopped, or its machine was", pause)
            return now - self._lost

    def close(self) -> None:
        self._stopped.set()

    def _beat(self) -> None:
        while not self._stopped.wait(BEAT_SECONDS):
            self()
