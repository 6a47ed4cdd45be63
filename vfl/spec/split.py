"""Which rows of a training are held out: drawn from the joint seed, or told by the label party."""

from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from vfl.errors import ImpossibleJob
from vfl.schedule import held_out_rows, of_keys
from vfl.spec.sections import Section, require

_OTHER_ROWS = "Bring more rows with other ids or times, or choose another split.test, split.validation or split.by."


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
    validation_rows: int = 0
    """How many it sets aside for validation; filled in as well."""

    @property
    def is_told(self) -> bool:
        """Whether the label party says which rows are held out; else they follow from the joint seed."""
        return self.stratify or self.by != "random"

    @property
    def tells_validation(self) -> bool:
        """Whether the label party says as well which rows are for validation."""
        return self.by != "random" and self.validation > 0

    @property
    def told_bits(self) -> int:
        """For each row, where the label party says which rows are held out."""
        return (1 + self.tells_validation) * self.is_told

    def held_out(self, rows: int) -> int:
        """How many of so many rows are held out."""
        return self.test_rows or held_out_rows(rows, self.test)

    def validated(self, rows: int) -> int:
        """How many of so many rows the loss is measured on between epochs."""
        return self.validation_rows or (max(1, round(rows * self.validation)) if self.validation else 0)

    def rows_of(self, keys: NDArray[np.float64]) -> NDArray[np.int64]:
        """The rows that `hash` or `time` holds out, ascending; `keys` are each row's hash or time."""
        return of_keys(keys, self.test, newest=self.by == "time")

    def validation_of(self, keys: NDArray[np.float64]) -> NDArray[np.int64]:
        """The validation rows, ascending: the next hashes above those held out, or the newest of the other rows."""
        if not self.tells_validation:
            return np.empty(0, np.int64)
        rest = np.setdiff1d(np.arange(len(keys)), self.rows_of(keys))
        if self.by == "hash":
            return rest[keys[rest] < self.test + self.validation]
        return rest[of_keys(keys[rest], self.validation * len(keys) / len(rest), newest=True)]

    def filled_in(self, keys: NDArray[np.float64]) -> "Split":
        """With the numbers of rows that follow from these keys. Raises ImpossibleJob where they are none, or all."""
        test, rows = self._number("test", len(self.rows_of(keys)), len(keys)), len(keys)
        validation = 0
        if self.tells_validation:
            validation = self._number("validation", len(self.validation_of(keys)), rows)
        if test + validation >= rows:
            raise ImpossibleJob(f"split.by = {self.by} leaves none of {rows} rows to train on", fix=_OTHER_ROWS)
        return msgspec.structs.replace(self, test_rows=test, validation_rows=validation)

    def _number(self, share: str, count: int, rows: int) -> int:
        """Of rows for this share; the specification may say it already."""
        key, verb = f"{share}_rows", "holds out" if share == "test" else "sets aside for validation"
        if not 0 < count < rows:
            raise ImpossibleJob(f"split.by = {self.by} {verb} {count} of {rows} rows", fix=_OTHER_ROWS)
        if (said := getattr(self, key)) not in {0, count}:
            raise ImpossibleJob(
                f"split.by = {self.by} {verb} {count} of {rows} rows, and split.{key} says {said}",
                fix=f"Leave split.{key} out: the label party fills it in.",
            )
        return count

    def check(self) -> None:
        """Raises SpecError."""
        require(0.0 < self.test < 1.0, "split.test must lie between 0 and 1")
        require(0.0 <= self.validation < 1.0 - self.test, "split.validation and split.test leave no row to train on")
        require(not self.stratify or self.by == "random", "split.stratify goes with split.by = random")
        require(bool(self.time) == (self.by == "time"), "split.time names the column of split.by = time, and no other")
        require(self.test_rows >= 0, "split.test_rows must not be negative")
        require(not self.test_rows or self.by != "random", "split.test_rows is for split.by = hash or time")
        require(self.validation_rows >= 0, "split.validation_rows must not be negative")
        require(
            not self.validation_rows or self.tells_validation,
            "split.validation_rows is for split.validation with split.by = hash or time",
        )
