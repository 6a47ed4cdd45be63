"""The loss on validation rows, measured between epochs: which epoch was best, and whether training should go on."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from vfl.notices import Notice
from vfl.spec.training import StopEarly


class Validation:
    def __init__(self, stop: StopEarly | None) -> None:
        self._stop = stop
        self.losses: dict[int, float] = {}
        """By epoch; NaN where the sum left the range of the agreed parameters."""
        self.best = 0
        """The epoch of the least loss so far; without early stopping, and before the first loss, 0."""
        self._least, self._without_gain = math.inf, 0

    def add(self, epoch: int, loss: float) -> None:
        self.losses[epoch] = loss
        if self._stop is None:
            return
        gain = self._least - loss
        self._without_gain = 0 if gain > self._stop.gain else self._without_gain + 1
        if gain > 0 or not self.best:  # of NaN there is no gain
            self._least, self.best = float(np.nan_to_num(loss, nan=math.inf)), epoch

    def checkpoint(self) -> dict[str, Any]:
        """`go_on_from` takes it."""
        losses, gain = dict(self.losses), self._without_gain
        return {"losses": losses, "best": self.best, "least": self._least, "without_gain": gain}

    def go_on_from(self, state: Mapping[str, Any]) -> None:
        self.losses, self.best = dict(state["losses"]), state["best"]
        self._least, self._without_gain = state["least"], state["without_gain"]

    @property
    def goes_on(self) -> bool:
        return self._stop is None or self._without_gain < self._stop.patience


def ended_early(epoch: int, epochs: int, best: int) -> Notice:
    """For either party, once the training ends by `train.stop_early`, or with weights of an earlier epoch."""
    ended = f"training ended after epoch {epoch} of {epochs}" if epoch < epochs else f"all {epochs} epochs were trained"
    text = f"{ended}; the weights are those of epoch {best}, after which the loss on validation rows was least"
    return Notice("note", "stopped_early", text)
