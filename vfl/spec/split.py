"""Which rows of a training are held out: drawn from the joint seed, or told by the label party."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vfl.schedule import held_out_rows, of_keys
from vfl.spec.sections import Section, require


class Split(Section, frozen=True, kw_only=True):
    test: float = 0.2
    validation: float = 0.0
    """Share of the rows on which the loss is measured between epochs; they are neither trained on nor tested."""
    stratify: bool = False
    """Each class is held out in its share; the label party then says which rows, and that tells a little of labels."""
    by: Literal["random", "hash", "time"] = "random"
    """`hash`: of the id, so that a row that is held out once always is; `time`: the newest rows. Of both the label
    party says which rows they are."""
    time: str = ""
    """The label party's column of dates or numbers that `time` goes by; it is no input."""
    test_rows: int = 0
    """How many rows `hash` or `time` holds out; the label party fills it in when it proposes."""

    @property
    def is_told(self) -> bool:
        """Whether the label party says which rows are held out; else they follow from the joint seed."""
        return self.stratify or self.by != "random"

    def held_out(self, rows: int) -> int:
        """How many of so many rows are held out."""
        return self.test_rows or held_out_rows(rows, self.test)

    def validated(self, rows: int) -> int:
        """How many of so many rows the loss is measured on between epochs."""
        return max(1, round(rows * self.validation)) if self.validation else 0

    def rows_of(self, keys: NDArray[np.float64]) -> NDArray[np.int64]:
        """The rows that `hash` or `time` holds out, ascending; `keys` are each row's hash or time."""
        return of_keys(keys, self.test, newest=self.by == "time")

    def check(self) -> None:
        """Raises SpecError."""
        require(0.0 < self.test < 1.0, "split.test must lie between 0 and 1")
        require(0.0 <= self.validation < 1.0 - self.test, "split.validation and split.test leave no row to train on")
        require(not self.stratify or self.by == "random", "split.stratify goes with split.by = random")
        require(bool(self.time) == (self.by == "time"), "split.time names the column of split.by = time, and no other")
        require(self.test_rows >= 0, "split.test_rows must not be negative")
        require(not self.test_rows or self.by != "random", "split.test_rows is for split.by = hash or time")
