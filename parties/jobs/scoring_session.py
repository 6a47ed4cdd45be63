"""A job that stays open for what this party's operator asks: rows by their ids, answered by the role in the worker.

Ids end here: the worker is given the places of rows, and peers are given no more. Each request is an event of the job
before it is answered, so that who asked for what can be looked up later.
"""

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeAlias

import msgspec
import numpy as np

from parties.session_errors import NoSession, OwnValuesUnfit, ScoresLate
from parties.storage.scores import score_names
from parties.tables.datasets import LoadedTable
from parties.worker.frames import Requested
from vfl.reports import Answered
from vfl.requests import ScoreRequest
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId, TableUse

ANSWER_SECONDS = 20.0

Id: TypeAlias = tuple[str, ...]
"""Of a row, as it is written in the columns that make it."""
OwnValues: TypeAlias = Mapping[str, float | str | None]
"""By column; null is an empty cell."""


class Wanted(NamedTuple):
    id: Id
    own: OwnValues | None = None
    """In the place of what the table holds."""


class ScoredRow(msgspec.Struct, frozen=True):
    id: list[str]
    state: str
    """`scored`, `out_of_range` where the score left the range of the agreed parameters, or `not_in_session`."""
    scores: dict[str, float | None] | None
    """By the names that they have in the file of scores."""


class Prediction(msgspec.Struct, frozen=True):
    """The answer to one request."""

    job: str
    """The session."""
    request: int
    """Counts the requests of the session."""
    opened: int
    """Rows that were scored jointly now; of the others what the peers add was here already."""
    rows: list[ScoredRow]
    """In the order in which they were asked for."""


class ScoringSession:
    """Safe for several threads. Of a job that does not stay open, or at another party than its coordinator, it never
    opens."""

    def __init__(
        self,
        job: str,
        spec: JobSpec,
        me: PartyId,
        tell: Callable[[Requested], None],
        note: Callable[[str, dict[str, int], int], None],
    ) -> None:
        """`tell` puts news into the worker's mailbox, `note` stores an event of the job."""
        self._job, self._spec, self._me, self._tell, self._note = job, spec, me, tell, note
        self._is_wanted = bool(spec.session_seconds) and me == spec.coordinator
        self._use, self._names, self._classes = TableUse(dataset=""), tuple[str, ...](), list[str]()
        self._places: dict[Id, int] = {}
        self._lock = threading.Lock()
        self._asked, self.is_open = 0, False
        self._waiting: dict[int, tuple[Future[Answered], dict[str, int]]] = {}

    @property
    def model(self) -> str:
        return self._spec.applied_model

    def prepare(self, tables: Mapping[str, LoadedTable], classes: Callable[[], list[str]]) -> None:
        """With what the worker is given."""
        if self._is_wanted:
            self._use, self._names, self._classes = (
                self._spec.tables_of(self._me)["rows"],
                tables["rows"].names,
                classes(),
            )
            self._places = {row: at for at, row in enumerate(tables["rows"].id_table.rows())}

    def open(self) -> None:
        """The worker is there."""
        with self._lock:
            self.is_open = self._is_wanted

    def ask(self, wanted: Sequence[Wanted]) -> Prediction:
        """Waits for the answer. Raises NoSession, OwnValuesUnfit, ScoresLate."""
        in_session = [row for row in wanted if row.id in self._places]
        own, words = self._own_values(in_session)
        places = np.array([self._places[row.id] for row in in_session], np.int64).tobytes()
        future: Future[Answered] = Future()
        with self._lock:
            if not self.is_open:
                raise _ended(self._job)
            self._asked += 1
            number = self._asked
            counts = {"request": number, "rows": len(wanted), "in_session": len(in_session)}
            self._waiting[number] = future, counts | {"own_values": int(own is not None)}
            self._tell(Requested(ScoreRequest(number, places, own, words)))
        try:
            answer = future.result(ANSWER_SECONDS)
        except TimeoutError:
            raise ScoresLate(f"the session {self._job} did not answer within {ANSWER_SECONDS:g} s") from None
        in_turn = iter(answer.scores)
        rows = [self._row(row.id, next(in_turn) if row.id in self._places else None) for row in wanted]
        return Prediction(self._job, number, answer.opened, rows)

    def hear(self, answer: Answered) -> None:
        """The role has answered; the event is stored first. Raises StorageFailed."""
        with self._lock:
            asked = self._waiting.pop(answer.number, None)
        if asked is None:
            return  # the job has ended meanwhile
        future, counts = asked
        opened = answer.opened_before + answer.opened
        text = (
            f"request {answer.number}: {counts['rows']:,} rows, {counts['in_session']:,} of them of the session, "
            f"{answer.opened:,} scored jointly now"
        )
        self._note(text, counts | {"opened": answer.opened}, opened)
        future.set_result(answer)

    def close(self) -> None:
        """The job is over: nobody is answered any more."""
        with self._lock:
            self.is_open, waiting = False, list(self._waiting.values())
            self._waiting.clear()
        for future, _ in waiting:
            future.set_exception(_ended(self._job))

    def _row(self, name: Id, scores: Sequence[float | None] | None) -> ScoredRow:
        if scores is None:
            return ScoredRow([*name], "not_in_session", None)
        named = dict(zip(score_names(len(scores), self._classes), scores, strict=True))
        return ScoredRow([*name], "out_of_range" if None in scores else "scored", named)

    def _own_values(self, rows: Sequence[Wanted]) -> tuple[bytes | None, dict[int, tuple[str, ...]]]:
        """As the worker takes them, with the words of columns of categories by their position."""
        with_values = [row for row in rows if row.own is not None]
        if not with_values:
            return None, {}
        if not self._spec.takes_own_values:
            raise OwnValuesUnfit(
                "this model cannot score other values: its encrypted neurons mix the columns of both sides",
                fix="Ask by ids alone, or start another session on a data set that has these values.",
            )
        words = {at: self._words(name, with_values) for at, name in enumerate(self._names) if name in self._use.words}
        numbers = [self._numbers(row, row.own or {}, words) for row in with_values]
        return np.array(numbers, np.float64).reshape(len(with_values), len(self._names)).tobytes(), words

    def _words(self, name: str, rows: Sequence[Wanted]) -> tuple[str, ...]:
        values = (row.own.get(name) for row in rows if row.own is not None)
        return tuple(dict.fromkeys(value for value in values if isinstance(value, str) and value))

    def _numbers(self, row: Wanted, own: OwnValues, words: Mapping[int, tuple[str, ...]]) -> list[float]:
        shown = f"the row {', '.join(row.id)!r}"
        if own.keys() != set(self._names):
            raise OwnValuesUnfit(
                f"{shown} has values of {_listed(own)}, and the model takes {_listed(self._names)} of this party",
                fix="Give every column that the model takes, and no other, or ask by the id alone.",
            )
        return [self._number(shown, at, own[name], words) for at, name in enumerate(self._names)]

    def _number(self, shown: str, at: int, value: float | str | None, words: Mapping[int, tuple[str, ...]]) -> float:
        name = self._names[at]
        if value is None or value == "":
            if name not in self._use.gaps and at not in words:
                raise OwnValuesUnfit(f"{shown} has no value of {name!r}, which was trained without empty cells")
            return math.nan
        if at in words:
            if not isinstance(value, str):
                raise OwnValuesUnfit(f"{shown} has the number {value:g} for {name!r}, which holds categories")
            return float(words[at].index(value))
        if isinstance(value, str) or not math.isfinite(value):
            raise OwnValuesUnfit(f"{shown} has {value!r} for {name!r}, which is no finite number")
        return float(value)


def _ended(job: str) -> NoSession:
    return NoSession(f"the session {job} is over")


def _listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    return ", ".join(map(repr, sorted(names))) or "no column"
