"""What the parties of a job agreed to bring, as a person reads it, from the specification in the operator API."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from vfl.kind import Kind

SHOWN_COLUMNS = 12
EACH_CLIENT = "each client"
USES = {
    "test": "test rows",
    "validation": "validation rows",
    "public": "public rows",
    "shared": "shared rows",
    "first": "rows of the first model",
}
"""What a table is for that holds no training rows of its party."""


class PartyData(NamedTuple):
    """One party of a job."""

    party: str
    role: str
    data: str
    """Its data sets, with their use where it is not training."""
    columns: list[str]
    label: str


def kind_in(job: dict[str, Any]) -> "Kind[Any, Any]":
    """The kind of a job that the operator API tells of."""
    from vfl.kinds import kind_named  # noqa: PLC0415 - numpy, which a command that asks nothing can do without

    return kind_named(job["specification"]["job"]["protocol"])


def data_by_party(specification: dict[str, Any]) -> Iterator[PartyData]:
    """Every party of the roster, the coordinator first."""
    from vfl.kinds import spec_of  # noqa: PLC0415

    spec = spec_of(specification)
    for party in spec.parties:
        tables = spec.tables_of(party)
        sets = [table.dataset if use == "rows" else f"{table.dataset} ({USES[use]})" for use, table in tables.items()]
        columns = next((list(table.columns) for table in tables.values()), [])
        label = next((table.label for table in tables.values() if table.label), "")
        yield PartyData(party, spec.role_of(party).value, ", ".join(sets), columns, label)


def reveals(job: dict[str, Any]) -> list[dict[str, Any]]:
    """The table "what each side could see", with one line for all clients of a job of rounds: theirs are alike."""
    clients = set(job["specification"]["roster"].get("clients", ()))
    lines: dict[tuple[str, str, str], dict[str, Any]] = {}
    for line in job["reveals"]:
        ends = {end: EACH_CLIENT if line[end] in clients else line[end] for end in ("sender", "receiver")}
        lines.setdefault((line["message"], *ends.values()), line | ends)
    return list(lines.values())


def listed(columns: list[str]) -> str:
    """The first columns by name, and how many more."""
    more = f" and {len(columns) - SHOWN_COLUMNS:,} more" if len(columns) > SHOWN_COLUMNS else ""
    return ", ".join(columns[:SHOWN_COLUMNS]) + more
