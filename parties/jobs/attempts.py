"""The attempts of one job at this party: which checkpoints its runs leave, and from which of them the next one goes on.

The number of an attempt is that of its links (`parties/wire/link.py`). Of a job that cannot go on there are none.
"""

from collections.abc import Mapping

from parties.storage.checkpoints import KEPT, Checkpoint, CheckpointStore, Names
from parties.wire.control import CheckpointName
from parties.wire.link import Link
from parties.worker.frames import Checkpointed
from vfl.spec.sections import PartyId


class Attempts:
    """Its methods run under the supervisor's lock. What they raise: StorageFailed."""

    def __init__(self, job: str, store: CheckpointStore, links: Mapping[PartyId, Link]) -> None:
        self._job, self._store, self._links = job, store, links
        self.held: dict[int, Names] = store.held(job)
        """By step."""

    def keep(self, frame: Checkpointed) -> None:
        """The role can go on from here."""
        reached, links = frame.reached, self._links
        names = {
            peer: CheckpointName(reached.step, links[peer].begun, digest) for peer, digest in frame.transcripts.items()
        }
        self._store.keep(self._job, Checkpoint(reached.step, reached.epoch, names, reached.state))
        self.held = dict(sorted((self.held | {reached.step: names}).items())[-KEPT:])

    def go_on_after(self, step: int) -> Checkpoint | None:
        """What the next run begins with; what came after that step does not count any more."""
        self._store.drop_after(self._job, step)
        self.held = {at: names for at, names in self.held.items() if at <= step}
        return self._store.checkpoint(self._job, step) if step else None
