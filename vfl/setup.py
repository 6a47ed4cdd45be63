"""What a role is given, as one frozen argument: everything it may know, and no way to reach the world."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crypto.ckks_parameters import CkksPreset
from vfl.job import JobSpec, PartyId, Role
from vfl.schedule import Batch, batches, held_out


@dataclass(frozen=True)
class Table:
    """One party's rows as the worker received them: raw values, in the order both sides share."""

    ids_digest: bytes
    """SHA-256 over the ordered ids, keyed with the joint seed."""
    columns: NDArray[np.float64]
    """rows x columns, in the order of the specification."""
    labels: NDArray[np.float64] | None = None
    """rows; at the label party only."""


@dataclass(frozen=True)
class Setup:
    spec: JobSpec
    me: PartyId
    table: Table = field(repr=False)
    joint_seed: bytes = field(repr=False)
    """Drawn by both sides: batch order and held-out rows."""
    private_seed: bytes = field(repr=False)
    """This party's own: initial weights."""
    preset: CkksPreset | None = None
    bottom: Callable[[int, int], Any] | None = None
    """Makes this party's own bottom module, for bottoms of kind `private`."""

    @property
    def rows(self) -> int:
        return len(self.table.columns)

    @property
    def training_rows(self) -> NDArray[np.int64]:
        return held_out(self.joint_seed, self.rows, self.spec.split.test)[0]

    @property
    def test_rows(self) -> NDArray[np.int64]:
        return held_out(self.joint_seed, self.rows, self.spec.split.test)[1]

    def batches(self) -> Iterator[Batch]:
        """The same batches in the same order at every party."""
        return batches(self.joint_seed, self.training_rows, self.spec.train.epochs, self.spec.train.batch_rows)

    def only(self, role: Role) -> PartyId:
        """The one peer that plays this role."""
        (party,) = (peer for peer in self.spec.peers_of(self.me) if self.spec.role_of(peer) is role)
        return party
