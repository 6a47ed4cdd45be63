"""Which rows of a file a job takes, and in which order, where it names an alignment."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from parties.trust.errors import AlignmentUnfit
from vfl.spec.sections import PartyId


@dataclass(frozen=True)
class AlignedRows:
    """This party's rows of one alignment, in the order that all its parties share."""

    digest: str
    """Of the result; the same at all parties."""
    parties: frozenset[PartyId]
    dataset: str
    file_digest: str
    rows: NDArray[np.int64] = field(repr=False)
    """Numbers of rows of the file, from 1."""

    def check(self, dataset: str, file_digest: str, parties: frozenset[PartyId]) -> None:
        """Raises AlignmentUnfit for a job on another data set or file, or with a party that took no part."""
        shown = f"the alignment {self.digest[:16]}"
        if dataset != self.dataset:
            raise AlignmentUnfit(f"{shown} is of the data set {self.dataset!r}, not {dataset!r}")
        if file_digest != self.file_digest:
            raise AlignmentUnfit(f"the file of {dataset!r} has changed since {shown}")
        if others := parties - self.parties:
            raise AlignmentUnfit(f"{', '.join(sorted(others))} took no part in {shown}")
