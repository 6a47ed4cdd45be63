"""Tasks of one job that run later, until the job is over."""

import threading
from collections.abc import Callable


class Timers:
    """Safe for several threads."""

    def __init__(self) -> None:
        self._timers: list[threading.Timer] = []

    def start(self, seconds: float, task: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, task)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def cancel_all(self) -> None:
        for timer in self._timers:
            timer.cancel()
