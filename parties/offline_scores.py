"""All halves of a model, brought together, score rows in one process: for a notebook, without a server or a peer.

`vfl model export` writes a half. What the halves score here equals what they score jointly, to the noise of the latter.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from parties.model_errors import ForeignModel
from parties.storage.exported_half import ExportedHalf
from parties.storage.models import WEIGHTS_FILE
from parties.tables.cells import categories_of, numbers_of
from parties.tables.table_files import Rows
from vfl.errors import InvalidBottom, ModelUnfit
from vfl.kinds import kind_of
from vfl.setup import Table
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId, TableUse

Floats = NDArray[np.float64]
NOT_SCORED = "Nothing was scored."


def score_offline(
    halves: Iterable[Path],
    tables: Mapping[PartyId, pl.DataFrame],
    *,
    fingerprints: Mapping[PartyId, str] | None = None,
    bottoms: Mapping[PartyId, Callable[[int, int], Any]] | None = None,
) -> Floats:
    """Rows x outputs, in the units of the label of a regression.

    `halves` are folders of exported halves, one of each party; `tables` hold each party's columns of the same rows, in
    the same order. `fingerprints` are those of the parties' identity keys, as `vfl peer list` shows them: the half of a
    party that is named there must be signed by that key. `bottoms` holds, of each party with a bottom model of kind
    `private`, the function that makes it: (columns, width) to a torch module, as its party.toml names it.

    Raises ModelChanged for a half that is not as it was exported, ForeignModel for one that another key has signed,
    ModelUnfit for halves that do not belong together, InvalidBottom, or InvalidData.
    """
    made_by = bottoms or {}
    read = {half.party: half for half in (ExportedHalf.read(folder, safe=NOT_SCORED) for folder in halves)}
    for party, fingerprint in (fingerprints or {}).items():
        if party in read and read[party].signature.key.fingerprint != fingerprint:
            signed = read[party].signature.key.fingerprint
            raise ForeignModel(
                f"the half of {party} is signed by the key {signed}, and not by {fingerprint}",
                safe=NOT_SCORED,
                fix=f"Ask {party} for its half on another way, and compare the fingerprint with its operator.",
            )
    spec = _common(read)
    if spec.private_bottom and (
        missing := [party for party in spec.peers_of(spec.coordinator) if party not in made_by]
    ):
        raise InvalidBottom(
            f"the bottom model of {', '.join(missing)} is private, and `bottoms` names no function that makes it",
            safe=NOT_SCORED,
            fix="Its owner has it in the file that its party.toml names: bottoms={'PARTY': FUNCTION}.",
        )
    brought = {
        party: table_of(spec.tables_of(party)["rows"], tables[party], party)
        for party in spec.parties
        if "rows" in spec.tables_of(party)
    }
    states = {party: half.files[WEIGHTS_FILE] for party, half in read.items()}
    scores: Floats = kind_of(spec).score_together(spec, states, brought, made_by)
    return scores


def _common(halves: Mapping[PartyId, ExportedHalf]) -> JobSpec:
    """The specification of the one training of which these are all halves."""
    first = next(iter(halves.values()), None)
    if first is None or set(halves) != set(first.spec.parties):
        due = "each party of one training" if first is None else ", ".join(first.spec.parties)
        raise ModelUnfit(f"the halves are of {', '.join(halves) or 'nobody'}, and one of {due} is needed")
    if len({half.training for half in halves.values()}) > 1:
        raise ModelUnfit("the halves are of different trainings", fix="Export the halves of one training.")
    return first.spec


def table_of(use: TableUse, table: pl.DataFrame, party: PartyId) -> Table:
    """A party's columns as its server reads them. Raises ModelUnfit where one is missing, InvalidData."""
    rows, file = Rows(table, np.arange(1, len(table) + 1), 0, decimal_comma=False), f"the table of {party}"
    columns, words = np.empty((len(table), len(use.columns))), dict[int, tuple[str, ...]]()
    for at, name in enumerate(use.columns):
        if name not in table.columns:
            raise ModelUnfit(f"{file} has no column {name!r}, which the model was trained on")
        if name in use.words:
            columns[:, at], words[at] = categories_of(rows, name, file)
        else:
            columns[:, at] = numbers_of(rows, name, file, gaps_allowed=name in use.gaps)
    return Table(b"", columns, words=words)
