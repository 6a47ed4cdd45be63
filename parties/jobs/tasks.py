"""Threads and timers of one job, and what becomes of an exception in them: it ends the job with a name."""

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from parties.errors import Failure, InternalError
from parties.wire.link import Link
from vfl.errors import JobError, RemoteProtocolError

_LOG = logging.getLogger("parties")


class TaskHearing(NamedTuple):
    is_over: Callable[[], bool]
    fail: Callable[[Failure], None]
    """End the job here."""
    exclude: Callable[[Link, JobError], None]
    """The peer broke a rule."""


class Tasks:
    """Safe for several threads. `lock` is the supervisor's."""

    def __init__(self, job: str, me: str, lock: AbstractContextManager[Any], hearing: TaskHearing) -> None:
        self._job, self._me, self._lock, self._hearing = job, me, lock, hearing
        self._timers: list[threading.Timer] = []

    def later(self, seconds: float, task: Callable[[], None]) -> None:
        """Under the lock, unless the job is over by then."""

        def run() -> None:
            with self._lock:
                if not self._hearing.is_over():
                    self.guard(task)

        timer = threading.Timer(seconds, run)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def cancel_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()

    def off_lock(self, task: Callable[[], None]) -> None:
        """Off the thread that owes a peer its receipt."""
        threading.Thread(target=self.guard, args=(task,), name=f"job {self._job}", daemon=True).start()

    def guard(self, task: Callable[[], None], link: Link | None = None) -> None:
        """Run something whose every exception must end the job with a name; a broken rule is its sender's."""
        try:
            task()
        except RemoteProtocolError as error:
            if link is None:
                self._hearing.fail(Failure.of(error, self._me))
            else:
                self._hearing.exclude(link, error)
        except JobError as error:
            self._hearing.fail(Failure.of(error, self._me))
        except Exception:  # noqa: BLE001 - whatever it is, the job ends and the server goes on
            _LOG.exception("job %s", self._job)
            self._hearing.fail(Failure.of(InternalError(f"a bug at {self._me}"), self._me))
