"""Coefficients with their standard errors on a terminal."""

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from api.coefficients import coefficients_of


def coefficient_table(job: dict[str, Any]) -> Iterator[RenderableType]:
    """Behind an empty line; nothing where the job has none."""
    coefficients = coefficients_of(job)
    if not coefficients:
        return
    table = Table("input", "party", box=None, pad_edge=False)
    for heading in ("coefficient", "standard error", "z", "p"):
        table.add_column(heading, justify="right")
    for line in coefficients:
        table.add_row(line.name, line.party, line.value, line.error, line.z, line.p)
    yield ""
    yield table
