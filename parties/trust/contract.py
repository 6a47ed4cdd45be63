"""The contract of a job: every party signs that it takes part in this job under this specification, and no other.

All signatures are stored at every party before its worker starts, or nothing runs.
"""

from collections.abc import Callable
from typing import Annotated

import msgspec

from parties.trust.identity import KEY_BYTES, SIGNATURE_BYTES, Domain, Identity, IdentityKey
from vfl.errors import RemoteProtocolError
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId

KeysOf = Callable[[PartyId], tuple[IdentityKey, ...]]
"""The identity keys of a party that count now; none of one that this party does not know."""


class Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A party's signature, and the identity key that made it."""

    key: Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    signature: Annotated[bytes, msgspec.Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]

    def holds(self, job: str, spec_digest: bytes) -> bool:
        """Whether the holder of this key has signed this contract."""
        try:
            key = IdentityKey(self.key)
        except ValueError:
            return False
        return key.verifies(Domain.SPECIFICATION, _statement(job, spec_digest), self.signature)


class Contract(msgspec.Struct, frozen=True):
    spec: bytes
    """The canonical bytes of the specification."""
    signed: dict[PartyId, Signed]


class Signatures:
    """Checks who has signed the contract of one job."""

    def __init__(self, job: str, spec: JobSpec, keys_of: KeysOf) -> None:
        self._job, self._spec_digest, self._keys_of = job, spec.digest(), keys_of
        self._named = spec.identity_keys

    def check(self, party: PartyId, signed: Signed) -> None:
        """With the key that the specification names.

        Where it names none, of a party that is no peer of this one only that the key it gives has signed.
        Raises RemoteProtocolError.
        """
        keys = {self._named[party]} if party in self._named else {key.raw for key in self._keys_of(party)}
        if not signed.holds(self._job, self._spec_digest) or (keys and signed.key not in keys):
            raise RemoteProtocolError(f"the specification of this job is not signed by {party}")


def sign(identity: Identity, job: str, spec_digest: bytes) -> Signed:
    return Signed(identity.key.raw, identity.sign(Domain.SPECIFICATION, _statement(job, spec_digest)))


def _statement(job: str, spec_digest: bytes) -> bytes:
    """The digest has one length, so the two cannot be divided in another way."""
    return spec_digest + job.encode()
