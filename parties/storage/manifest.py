"""What is written beside this party's half of a model: what it was trained for, on which data, and what it measured."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import polars as pl

from parties.tables.datasets import LoadedTable
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId


class Inputs(NamedTuple):
    """What the weights are applied to: this party's own columns in order, and its label; nothing of another party."""

    columns: tuple[str, ...]
    label: str
    classes: tuple[str, ...] = ()
    """What the label holds for class 0, 1, ..."""
    files: Mapping[str, str] = {}
    """SHA-256 of the file of each table, by its use."""
    named_rows: pl.DataFrame | None = None
    """The ids of the rows, in order, where results are stored with them."""


NO_INPUTS = Inputs((), "")


def inputs_of(spec: JobSpec, party: PartyId, tables: Mapping[str, LoadedTable]) -> Inputs:
    """All tables of a party have the same columns; an aggregator without any takes those the job names."""
    uses = spec.tables_of(party).values()
    label = next((use.label for use in uses if use.label), "")
    named = next((use.columns for use in uses), ())
    classes = next((table.classes for table in tables.values() if table.classes), ())
    files = {use: table.digest for use, table in tables.items()}
    named_rows = next((tables[use].id_table for use, of in spec.tables_of(party).items() if of.ids_name_results), None)
    names = next((table.names for table in tables.values()), named)
    return Inputs(names, label, classes, files, named_rows)


def result_file(job: str, spec: JobSpec, party: PartyId, inputs: Inputs, measured: Mapping[str, Any]) -> dict[str, Any]:
    """`measured` is what the role returned, and the weights' digest."""
    return {
        "job": job,
        "name": spec.job.name,
        "purpose": spec.job.purpose,
        "party": party,
        "spec_digest": spec.digest().hex(),
        "parties": list(spec.parties),
        "files": inputs.files,
        "data": {use: table.dataset for use, table in spec.tables_of(party).items()},
        "columns": inputs.columns,
        "label": inputs.label,
        "classes": inputs.classes,
        **measured,
    }


MANIFEST = (
    "job",
    "name",
    "purpose",
    "party",
    "parties",
    "spec_digest",
    "data",
    "columns",
    "label",
    "model_digest",
    "result_digest",
)
"""What of it a manifest repeats, which auditors and peers read: nothing that was measured, and nothing of a table."""
