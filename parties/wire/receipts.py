"""What a receiver answers: how far it has come, signed."""

from typing import Self

import msgspec

from parties.trust.identity import Domain, Identity
from vfl.spec.sections import PartyId


class Receipt(msgspec.Struct, frozen=True):
    """How far the receiver has come in one direction of one attempt of one job, signed with its identity key."""

    job: str
    attempt: int
    next: int
    """The number of the envelope that is due."""
    last: bytes = b""
    """The digest of the header that came last: it names all that came before."""
    signature: bytes = b""

    def statement(self, receiver: PartyId, sender: PartyId) -> bytes:
        """What is signed."""
        return msgspec.msgpack.encode([receiver, sender, self.job, self.attempt, self.next, self.last])

    def signed_by(self, receiver: Identity, sender: PartyId) -> Self:
        signature = receiver.sign(Domain.RECEIPT, self.statement(receiver.name, sender))
        return msgspec.structs.replace(self, signature=signature)


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of every answer to a POST of envelopes; `code` and `detail` stand in a refusal."""

    party: PartyId
    wire_version: int
    receipts: tuple[Receipt, ...] = ()
    code: str = ""
    detail: str = ""
    expected: int | None = None
