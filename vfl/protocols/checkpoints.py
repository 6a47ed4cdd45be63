"""Where a training goes on after a crash: what a role reports between two steps, and the steps that are left to it.

A checkpoint holds what the next steps and the result hang on: weights, optimiser, step, losses so far. It holds no key,
no mask and no message: a role that goes on from one makes new keys and draws new masks, and the steps after it are
taken with values that were never encrypted or masked before. All parties report the same steps, which follow from the
specification and the number of rows (docs/reliability.md).
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from vfl.flow import Flow, report
from vfl.models.tensors import load_state, save_state
from vfl.reports import CheckpointReached
from vfl.schedule import Batch
from vfl.setup import Setup
from vfl.spec.training import TrainingSpec


class Side(Protocol):
    """What a party trains."""

    def checkpoint(self) -> dict[str, Any]: ...

    def go_on_from(self, state: Mapping[str, Any]) -> None: ...


class Progress:
    """How far a role has come, from its first step or from the checkpoint it was given."""

    def __init__(self, setup: Setup[TrainingSpec], side: Side) -> None:
        self._setup, self._side = setup, side
        self._step, self._goes_on = 0, True
        self._operations: dict[str, int] = {}
        if setup.saved:
            saved = load_state(setup.saved)
            self._step, self._goes_on, self._operations = saved["step"], saved["goes_on"], saved["operations"]
            side.go_on_from(saved["side"])

    def batches(self) -> Iterator[Batch]:
        """Those after the checkpoint; none where the training had ended early by then."""
        if self._goes_on:
            yield from (batch for batch in self._setup.batches() if batch.step > self._step)

    def operations(self, since: Mapping[str, int]) -> dict[str, int]:
        """Those before the checkpoint too."""
        return dict(sorted((Counter(self._operations) + Counter(since)).items()))

    def reached(self, batch: Batch, operations: Mapping[str, int] | None = None, *, goes_on: bool = True) -> Flow[None]:
        """The step is over at this party, with all that it says and hears after an epoch."""
        if not self._setup.spec.train.has_checkpoint(batch.step, batch.steps):
            return
        state = {
            "step": batch.step,
            "goes_on": goes_on,
            "operations": self.operations(operations or {}),
            "side": self._side.checkpoint(),
        }
        epochs = batch.epoch if batch.last_of_epoch else batch.epoch - 1
        yield from report(CheckpointReached(batch.step, epochs, save_state(state)))
