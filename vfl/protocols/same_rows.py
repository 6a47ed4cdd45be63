"""First lines of every training and prediction: the same rows in the same order, and of a training those held out.

Each side sends its number of rows and a digest of its ordered ids, keyed with the joint seed, and compares. Where the
job names an alignment, the digest of its result stands for the ids. Ids never travel, but whoever can guess the whole
list can test the guess. The joint seed says which rows are held out, unless the job asks for each class in its share,
for the same rows in every training or for the newest: then the label party says which (`HeldOut`).
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vfl.errors import LocalProtocolError, RemoteProtocolError, RowsDiffer
from vfl.flow import Flow, gather, receive, send
from vfl.messages import HeldOut, RowsDigest
from vfl.schedule import stratified
from vfl.setup import Setup
from vfl.spec.training import TrainingRole, TrainingSpec


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


def agree_on_rows(setup: Setup[TrainingSpec]) -> Flow[Setup[TrainingSpec]]:
    """The setup to go on with. Raises RowsDiffer."""
    yield from compare_rows(setup)
    if not setup.spec.split.is_told:
        return setup
    if setup.spec.role_of(setup.me) is TrainingRole.LABEL:
        return (yield from _hold_out(setup))
    return (yield from _receive_test_rows(setup))


def _hold_out(setup: Setup[TrainingSpec]) -> Flow[Setup[TrainingSpec]]:
    rows = _held_out_here(setup)
    bits = np.packbits(np.isin(np.arange(setup.rows), rows), bitorder="little").tobytes()
    for feature in setup.spec.roster.features:
        yield from send(feature, HeldOut(bits))
    return replace(setup, agreed_test_rows=rows)


def _held_out_here(setup: Setup[TrainingSpec]) -> NDArray[np.int64]:
    split, table = setup.spec.split, setup.table
    if split.stratify:
        if table.labels is None:
            raise LocalProtocolError(f"{setup.me} is the label party and brought no labels")
        return stratified(setup.private_seed, table.labels, split.test)
    if table.split_keys is None:
        raise LocalProtocolError(f"{setup.me} is the label party and brought nothing to hold rows out by {split.by}")
    return split.rows_of(table.split_keys)


def _receive_test_rows(setup: Setup[TrainingSpec]) -> Flow[Setup[TrainingSpec]]:
    label = setup.only(TrainingRole.LABEL)
    held_out = yield from receive(HeldOut, label)
    bits = np.unpackbits(np.frombuffer(held_out.rows, np.uint8), bitorder="little")
    rows = np.flatnonzero(bits).astype(np.int64)
    due = setup.spec.split.held_out(setup.rows)
    if len(held_out.rows) != -(-setup.rows // 8) or len(rows) != due or rows.max(initial=0) >= setup.rows:
        raise RemoteProtocolError(f"{label} does not hold out {due} of {setup.rows} rows, as the specification asks")
    return replace(setup, agreed_test_rows=rows)
