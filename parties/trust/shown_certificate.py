"""Which certificate a party's server shows, said by its identity key: a caller that meets one of another issuer asks.

    asks       POST /peer/v1/certificate: a nonce
    answers    the certificate; the signature over "vfl-server-certificate-v1", zero, nonce and certificate

The caller believes the signature and not the connection it came over. From then on it takes this very certificate, and
no other of the same authority; TLS shows that the server has its key. The nonce keeps an old answer, and with it a
certificate that was replaced, from counting again (docs/trust.md).
"""

from collections.abc import Sequence
from typing import Annotated, NamedTuple, Self

import msgspec

from parties.trust.identity import Domain, Identity, IdentityKey
from parties.trust.rotation import Signature

NONCE_BYTES, LONGEST_CERTIFICATE = 32, 32 << 10


class LearnedCertificate(NamedTuple):
    der: bytes
    key: IdentityKey
    """That has signed it."""


class SignedCertificate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    certificate: Annotated[bytes, msgspec.Meta(max_length=LONGEST_CERTIFICATE)]
    """DER."""
    signature: Signature

    @classmethod
    def of(cls, identity: Identity, nonce: bytes, certificate: bytes) -> Self:
        return cls(certificate, identity.sign(Domain.SERVER_CERTIFICATE, nonce + certificate))


def read_answer(answer: bytes, nonce: bytes, keys: Sequence[IdentityKey]) -> LearnedCertificate | None:
    """None where none of these keys has signed it as the answer to this nonce."""
    try:
        signed = msgspec.msgpack.decode(answer, type=SignedCertificate)
    except msgspec.DecodeError:
        return None
    message = nonce + signed.certificate
    key = next((key for key in keys if key.verifies(Domain.SERVER_CERTIFICATE, message, signed.signature)), None)
    return LearnedCertificate(signed.certificate, key) if key is not None else None
