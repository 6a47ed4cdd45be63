"""What all jobs of a party share."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from parties.consent import Consent
from parties.storage.checkpoints import CheckpointStore
from parties.storage.database import Job, Store
from parties.storage.ledger import Ledger
from parties.storage.models import ModelStore
from parties.trust.contract import KeysOf
from parties.trust.signer import Signer
from parties.wire.outbox import Outbox
from parties.worker.mailbox import Room
from vfl.spec.sections import PartyId


class Resources(NamedTuple):
    signer: Signer
    keys_of: Callable[[Job], KeysOf]
    """Identity keys that counted when the job began: so long a signature under its contract holds."""
    outbox_to: Callable[[PartyId], Outbox]
    """A peer that is trusted now."""
    store: Store
    ledger: Ledger
    models: ModelStore
    checkpoints: CheckpointStore
    consent: Consent
    folder: Path
    room: Room
    """For what lies unread for workers."""
