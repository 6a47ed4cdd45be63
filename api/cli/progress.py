"""How far a job is, on stderr: a bar on a terminal, otherwise a line per ten per cent or thirty seconds."""

import sys
import time
from types import TracebackType
from typing import Any, Self

from api.agreement import kind_in
from api.cli.output import note, notes_console

LINE_SECONDS = 30.0
STEPS_BEFORE_ESTIMATE = 20
"""Fewer steps say little about the time left (cli.md); of a job of few rounds, fewer than a tenth."""


class Progress:
    """Shows the state of a job after the other, and lines about them. Silent when `quiet`."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._task: Any = None
        self._phase = ""
        self._tenths = 0
        self._first: tuple[int, float] | None = None
        """The step that was seen first, and when."""
        self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        if not self._quiet and sys.stderr.isatty():
            from rich.progress import BarColumn, TextColumn  # noqa: PLC0415 - only where a bar is drawn
            from rich.progress import Progress as Bar  # noqa: PLC0415

            columns = (TextColumn("{task.description}"), BarColumn(24), TextColumn("{task.fields[text]}"))
            self._bar = Bar(*columns, console=notes_console(), transient=True)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def line(self, text: str) -> None:
        """A line that stays."""
        if self._quiet:
            return
        if self._bar:
            self._bar.console.print(text, markup=False)
        else:
            note(text)
            self._last_line = time.monotonic()

    def phase(self, text: str) -> None:
        """What happens now, when there is nothing to count."""
        if text == self._phase:
            return
        self._phase = text
        self._tenths, self._first = 0, None  # of a job that begins after it
        if not self._bar:
            self.line(text)
        elif self._task is None:
            self._task = self._bar.add_task(text, total=None, text="")
        else:
            self._bar.reset(self._task, description=text, total=None, text="")

    def job(self, job: dict[str, Any]) -> None:
        """The step of a job as its server tells it."""
        step, steps = job.get("step") or 0, job.get("steps") or 0
        if self._quiet or not step or not steps:
            return
        now = time.monotonic()
        self._first = self._first or (step, now)
        activity = kind_in(job).activity
        text = f"{how_far(job)}{self._time_left(step, steps, now)}"
        if self._bar:
            if self._task is None:
                self._task = self._bar.add_task(activity, total=steps, text=text)
            self._phase = activity
            self._bar.update(self._task, description=activity, total=steps, completed=step, text=text)
        elif (tenths := 10 * step // steps) > self._tenths or now - self._last_line >= LINE_SECONDS:
            self._tenths = tenths
            self._last_line = now
            note(f"{activity} {100 * step // steps:3d} %: {text}")

    def _time_left(self, step: int, steps: int, now: float) -> str:
        first_step, started = self._first or (step, now)
        if step - first_step < min(STEPS_BEFORE_ESTIMATE, 1 + steps // 10) or step >= steps:
            return ""
        return f", {(now - started) / (step - first_step) * (steps - step):.0f} s left"


def how_far(job: dict[str, Any]) -> str:
    """The job's own count of what is behind it."""
    kind = kind_in(job)
    checkpoints = f", {job['epoch']} of {job['epochs']} {kind.checkpoint}s done" if kind.checkpoint != kind.step else ""
    return f"{kind.step} {job['step']} of {job['steps']}{checkpoints}"
