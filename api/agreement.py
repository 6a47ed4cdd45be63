"""What the parties of a job agreed to bring, as a person reads it, from the specification in the operator API."""

from collections.abc import Iterator
from typing import Any, NamedTuple

SHOWN_COLUMNS = 12
EACH_CLIENT = "each client"
USES = {
    "dataset": "rows",
    "test": "test rows",
    "validation": "validation rows",
    "public": "public rows",
    "shared": "shared rows",
    "first": "rows of the first model",
}
"""Keys of [data.*] and what the data set they name is for."""


class TableUse(NamedTuple):
    """One party of a job."""

    party: str
    role: str
    data: str
    """Its data sets, with their use where it is not training."""
    columns: list[str]
    label: str


def brought(specification: dict[str, Any]) -> Iterator[TableUse]:
    """Every party of the roster, the coordinator first."""
    roster, model, data = specification["roster"], specification["model"], specification["data"]
    roles = {roster[role]: role for role in ("label", "aggregator") if role in roster}
    roles |= {party: role.removesuffix("s") for role in ("features", "clients") for party in roster.get(role, ())}
    for party, role in roles.items():
        given = data.get(party, {})
        named = [(given[key], use) for key, use in USES.items() if given.get(key)]
        sets = ", ".join(name if use == "rows" else f"{name} ({use})" for name, use in named)
        columns, label = given.get("columns", model.get("columns", ())), given.get("label", model.get("label", ""))
        yield TableUse(party, role, sets, list(columns) if sets else [], label if sets else "")


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
