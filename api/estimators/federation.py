"""A label party and a feature party in one process: the roles that servers run, and no network between them."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from parties.job_check import JobCheck, check
from parties.offline_scores import table_of
from parties.wire.control import fixed_private_seed, joint_seed
from vfl.errors import JobError
from vfl.flow import run_together
from vfl.kinds import flow_of, kind_of, spec_of
from vfl.planning.training import resolve
from vfl.reports import Outcome
from vfl.setup import Setup, Table
from vfl.spec.sections import PartyId
from vfl.spec.training import TrainingSpec

Floats = NDArray[np.float64]

LABEL_PARTY, FEATURE_PARTY = "label-party", "feature-party"


class Labels(NamedTuple):
    numbers: Floats
    """rows; classes count from 0."""
    classes: tuple[str, ...] = ()
    """What class 0, 1, ... is called."""


class Trained(NamedTuple):
    spec: TrainingSpec
    """With what it left open filled in."""
    outcomes: dict[PartyId, Outcome]
    check: JobCheck
    """What `vfl job check` says of the job on so many rows."""


@contextmanager
def as_value_errors() -> Iterator[None]:
    """What is wrong with a job or its columns as scikit-learn says it, with the way to mend it in the message."""
    try:
        yield
    except JobError as error:
        raise ValueError(f"{error}. {error.fix}" if error.fix else str(error)) from error


def train(text: str, rows: pl.DataFrame, labels: Labels) -> Trained:
    """Run the job of this TOML text, whose seed is fixed, on rows with the columns of both parties. Raises ValueError.

    No party's limits are asked: in one process there is nobody to protect from anybody. What no server could run is
    refused.
    """
    with as_value_errors():
        read = spec_of(tomllib.loads(text))  # an error names no line, as nobody has seen this text
        assert isinstance(read, TrainingSpec)  # noqa: S101 - an estimator writes no other kind
        spec = resolve(read)
        checked = check(spec, rows.height)
        roles = {}
        for party in spec.parties:
            table = table_of(spec.tables_of(party)["rows"], rows, party)
            if party == spec.coordinator:
                table = Table(b"", table.columns, labels.numbers, labels.classes, words=table.words)
            private_seed = fixed_private_seed(f"{party} {spec.job.seed}")
            roles[party] = flow_of(Setup(spec, party, {"rows": table}, joint_seed(spec, {}), private_seed))
        return Trained(spec, run_together(roles, keep_messages=False).results, checked)


def score(spec: TrainingSpec, halves: Mapping[PartyId, bytes], rows: pl.DataFrame) -> Floats:
    """Rows x outputs, as the halves give them where their owners have brought them together. Raises ValueError."""
    with as_value_errors():
        tables = {party: table_of(spec.tables_of(party)["rows"], rows, party) for party in spec.parties}
        scores: Floats = kind_of(spec).score_together(spec, halves, tables, {})
        return scores


def named_rows(values: NDArray[Any], names: Sequence[str]) -> pl.DataFrame:
    """An array as a table, in which an empty cell is null."""
    if values.dtype != object:
        return pl.DataFrame({name: values[:, at] for at, name in enumerate(names)}, nan_to_null=True)
    cells = {
        name: [None if cell is None or cell != cell else cell for cell in values[:, at].tolist()]  # noqa: PLR0124 - NaN
        for at, name in enumerate(names)
    }
    return pl.DataFrame(cells, strict=False)
