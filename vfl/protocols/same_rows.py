"""First line of every training until sample alignment exists: do both sides hold the same rows in the same order?

Each side sends its number of rows and a digest of its ordered ids, keyed with the joint seed, and compares. Ids never
travel, but whoever can guess the whole list can test the guess.
"""

from vfl.errors import RowsDiffer
from vfl.flow import Flow, gather, send
from vfl.messages import RowsDigest
from vfl.setup import Setup
from vfl.training_spec import TrainingSpec


def same_rows(setup: Setup[TrainingSpec]) -> Flow[None]:
    """Exchange digests with every peer. Raises RowsDiffer, naming the peer and what differs."""
    peers = setup.spec.peers_of(setup.me)
    for peer in peers:
        yield from send(peer, RowsDigest(setup.rows, setup.table.ids_digest))
    theirs = yield from gather(RowsDigest, peers)
    for peer, rows in theirs.items():
        if rows.rows != setup.rows:
            raise RowsDiffer(f"{setup.me} has {setup.rows} rows and {peer} has {rows.rows}")
        if rows.digest != setup.table.ids_digest:
            raise RowsDiffer(f"the ids of {setup.me} and {peer} differ, or stand in another order")
