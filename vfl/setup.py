"""What a role is given, as one frozen argument: everything it may know, and no way to reach the world."""

import hashlib
import hmac
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from crypto.pieces import HERE, Pool
from vfl.ids import HashedIds
from vfl.schedule import Batch, batches, held_out, permutation
from vfl.spec.job import JobSpec
from vfl.spec.joined_rows import JoinedRowsSpec
from vfl.spec.sections import PartyId, Role
from vfl.spec.training import TrainingSpec

S = TypeVar("S", bound=JobSpec)
J = TypeVar("J", bound=JoinedRowsSpec)

READ_ROWS = 1 << 14
"""Of a mapped file at once."""


@dataclass(frozen=True)
class Table:
    """One party's rows as the worker received them: raw values, in the order both sides share."""

    ids_digest: bytes
    """SHA-256 over the ordered ids, keyed with the joint seed."""
    columns: NDArray[np.float64]
    """rows x columns, in the order of the specification; NaN where a cell is empty."""
    labels: NDArray[np.float64] | None = None
    """rows; at the label party only."""
    classes: tuple[str, ...] = ()
    """What this party calls class 0, 1, ...; empty where it has no names for them."""
    ids: HashedIds | None = None
    """In a job that compares ids."""
    words: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """Of a column of categories, by its position: what its codes 0, 1, ... stand for. NaN is an empty cell."""
    release: Callable[[], None] = field(default=lambda: None, repr=False)
    """What was looked at of a mapped file leaves memory."""
    split_keys: NDArray[np.float64] | None = None
    """rows; by which rows are held out: the hash of each id between 0 and 1, or each row's time. At the label party
    only, and only where the job asks for it."""

    def numbers(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Of these rows, as they stand here; a mapped file is read in parts, of which none stays in memory."""
        read = np.empty((len(rows), self.columns.shape[1]))
        for start in range(0, len(rows), READ_ROWS):
            read[start : start + READ_ROWS] = self.columns[rows[start : start + READ_ROWS]]
            self.release()
        return read


@dataclass(frozen=True)
class InputScaling:
    """Of rounds, alike at all parties: an input is (clip(value, low, high) - zero) / unit.

    One entry per column, or one for all.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    zero: NDArray[np.float64]
    unit: NDArray[np.float64]

    def apply(self, columns: NDArray[np.float64]) -> NDArray[np.float64]:
        return (np.clip(columns, self.low, self.high) - self.zero) / self.unit

    def outside(self, columns: NDArray[np.float64]) -> NDArray[np.int64]:
        """How many values of each column are clipped."""
        outside: NDArray[np.int64] = ((columns < self.low) | (columns > self.high)).sum(axis=0)
        return outside


@dataclass(frozen=True)
class Setup(Generic[S]):
    spec: S
    me: PartyId
    tables: Mapping[str, Table] = field(repr=False)
    """By use: `rows` of a label, feature or client party; `test`, `public` and others of an aggregator."""
    joint_seed: bytes = field(repr=False)
    """Drawn by both sides: batch order and held-out rows."""
    private_seed: bytes = field(repr=False)
    """This party's own: initial weights."""
    bottom: Callable[[int, int], Any] | None = None
    """Makes this party's own bottom module, for bottoms of kind `private`."""
    model: bytes = field(default=b"", repr=False)
    """A registered model, safetensors: the one that rounds start from, or this party's half of one that is applied."""
    saved: bytes = field(default=b"", repr=False)
    """State of an earlier run of this role to continue from, as it was reported; empty starts anew."""
    pool: Pool = HERE
    """Where heavy work is done: in this process, or in several."""
    scaling: InputScaling | None = None
    """Of rounds whose columns are pooled, once it is known."""

    agreed_test_rows: NDArray[np.int64] | None = field(default=None, repr=False)
    """Rows that the label party says are held out; None where the joint seed alone says which."""
    agreed_validation_rows: NDArray[np.int64] | None = field(default=None, repr=False)
    """The same of validation rows."""

    @property
    def table(self) -> Table:
        """This party's own rows."""
        return self.tables["rows"]

    @property
    def rows(self) -> int:
        return len(self.table.columns)

    def own_stream(self, name: str, answered: bytes) -> Callable[[int], bytes]:
        """Random bytes that nobody else can foresee, and that are the same when the same is answered again."""
        digest = hashlib.sha256(answered).digest()
        key = hmac.digest(self.private_seed, self.joint_seed + digest + name.encode(), "sha256")
        drawn = 0

        def draw(count: int) -> bytes:
            nonlocal drawn
            drawn += 1
            return hashlib.shake_256(key + drawn.to_bytes(8, "big")).digest(count)

        return draw

    @property
    def training_rows(self: "Setup[J]") -> NDArray[np.int64]:
        return self._without_test_rows[0]

    @property
    def validation_rows(self: "Setup[J]") -> NDArray[np.int64]:
        """Rows on which the loss is measured between epochs, ascending."""
        return self._without_test_rows[1]

    @property
    def _without_test_rows(self: "Setup[J]") -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(training rows, validation rows)"""
        if self.agreed_test_rows is not None:
            rest = np.setdiff1d(np.arange(self.rows), self.agreed_test_rows)
        else:
            rest = held_out(self.joint_seed, self.rows, self.spec.split.test)[0]
        if not self.spec.split.validation:
            return rest, rest[:0]
        if self.agreed_validation_rows is not None:
            return np.setdiff1d(rest, self.agreed_validation_rows), self.agreed_validation_rows
        drawn = permutation(self.joint_seed, "validation", len(rest))[: self.spec.split.validated(self.rows)]
        return np.delete(rest, drawn), np.sort(rest[drawn])

    @property
    def test_rows(self: "Setup[J]") -> NDArray[np.int64]:
        if self.agreed_test_rows is not None:
            return self.agreed_test_rows
        return held_out(self.joint_seed, self.rows, self.spec.split.test)[1]

    def batches(self: "Setup[TrainingSpec]") -> Iterator[Batch]:
        """The same batches in the same order at every party."""
        return batches(self.joint_seed, self.training_rows, self.spec.train.epochs, self.spec.train.batch_rows)

    def only(self, role: Role) -> PartyId:
        """The one peer that plays this role."""
        (party,) = (peer for peer in self.spec.peers_of(self.me) if self.spec.role_of(peer) is role)
        return party
