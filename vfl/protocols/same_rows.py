"""First lines of every training and prediction: the same rows in the same order, and of a training those held out.

Each side sends its number of rows and a digest of its ordered ids, keyed with the joint seed, and compares. Where the
job names an alignment, the digest of its result stands for the ids. Ids never travel, but whoever can guess the whole
list can test the guess. The joint seed says which rows are held out, unless the job asks for each class in its share,
for the same rows in every training or for the newest: then the label party says which (`HeldOut`), and of the last two
which are for validation as well.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vfl.errors import LocalProtocolError, RemoteProtocolError, RowsDiffer
from vfl.flow import Flow, gather, receive, send
from vfl.messages import HeldOut, RowsDigest
from vfl.schedule import stratified
from vfl.setup import J, Setup
from vfl.spec.joined_rows import TrainingRole

Rows = NDArray[np.int64]


def compare_rows(setup: Setup[Any]) -> Flow[None]:
    """Raises RowsDiffer, naming the peer and what differs."""
    peers = setup.spec.peers_of(setup.me)
    for peer in peers:
        yield from send(peer, RowsDigest(setup.rows, setup.table.ids_digest))
    theirs = yield from gather(RowsDigest, peers)
    for peer, rows in theirs.items():
        if rows.rows != setup.rows:
            raise RowsDiffer(f"{setup.me} has {setup.rows} rows and {peer} has {rows.rows}")
        if rows.digest != setup.table.ids_digest:
            raise RowsDiffer(f"the ids of {setup.me} and {peer} differ, or are in another order")


def agree_on_rows(setup: Setup[J]) -> Flow[Setup[J]]:
    """The setup to go on with. Raises RowsDiffer."""
    yield from compare_rows(setup)
    if not setup.spec.split.is_told:
        return setup
    if setup.spec.role_of(setup.me) is TrainingRole.LABEL:
        return (yield from _hold_out(setup))
    return (yield from _receive_held_out(setup))


def _hold_out(setup: Setup[J]) -> Flow[Setup[J]]:
    test, validation = _held_out_here(setup)
    parts = [test] if validation is None else [test, validation]
    bits = [np.packbits(np.isin(np.arange(setup.rows), part), bitorder="little").tobytes() for part in parts]
    for feature in setup.spec.roster.features:
        yield from send(feature, HeldOut(b"".join(bits)))
    return replace(setup, agreed_test_rows=test, agreed_validation_rows=validation)


def _held_out_here(setup: Setup[J]) -> tuple[Rows, Rows | None]:
    """(test rows, validation rows where they are told as well)"""
    split, table = setup.spec.split, setup.table
    if split.stratify:
        if table.labels is None:
            raise LocalProtocolError(f"{setup.me} is the label party and brought no labels")
        return stratified(setup.private_seed, table.labels, split.test), None
    if table.split_keys is None:
        raise LocalProtocolError(f"{setup.me} is the label party and brought nothing to hold rows out by {split.by}")
    keys = table.split_keys
    return split.rows_of(keys), split.validation_of(keys) if split.tells_validation else None


def _receive_held_out(setup: Setup[J]) -> Flow[Setup[J]]:
    label, split = setup.only(TrainingRole.LABEL), setup.spec.split
    held_out = yield from receive(HeldOut, label)
    part = -(-setup.rows // 8)
    is_whole = len(held_out.rows) == split.told_bits * part
    test = _rows_in(held_out.rows[: is_whole * part], split.held_out(setup.rows), setup, "hold out")
    if not split.tells_validation:
        return replace(setup, agreed_test_rows=test)
    validation = _rows_in(held_out.rows[part:], split.validated(setup.rows), setup, "set aside for validation")
    if len(np.intersect1d(test, validation)):
        raise RemoteProtocolError(f"{label} sets rows aside for validation that it holds out")
    return replace(setup, agreed_test_rows=test, agreed_validation_rows=validation)


def _rows_in(bits: bytes, due: int, setup: Setup[J], verb: str) -> Rows:
    """As many as the specification says. Raises RemoteProtocolError."""
    rows = np.flatnonzero(np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")).astype(np.int64)
    if len(rows) != due or rows.max(initial=0) >= setup.rows:
        label = setup.only(TrainingRole.LABEL)
        raise RemoteProtocolError(f"{label} does not {verb} {due} of {setup.rows} rows, as the specification asks")
    return rows
