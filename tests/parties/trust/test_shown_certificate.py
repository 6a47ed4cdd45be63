"""Which certificate a server shows counts only as its identity key has said it, to whoever has just asked."""

import msgspec
import pytest
from identities import identity_of

from parties.trust.identity import Domain
from parties.trust.shown_certificate import (
    LONGEST_CERTIFICATE,
    NONCE_BYTES,
    LearnedCertificate,
    SignedCertificate,
    read_answer,
)

BANK, STRANGER = identity_of("bank"), identity_of("stranger")
NONCE, CERTIFICATE = bytes(NONCE_BYTES), b"certificate"
SAID = SignedCertificate.of(BANK, NONCE, CERTIFICATE)


def read(signed: SignedCertificate, nonce: bytes = NONCE) -> LearnedCertificate | None:
    return read_answer(msgspec.msgpack.encode(signed), nonce, [STRANGER.key, BANK.key])


def test_what_one_of_the_keys_has_signed_is_learned() -> None:
    assert read(SAID) == LearnedCertificate(CERTIFICATE, BANK.key)


@pytest.mark.parametrize(
    "signed",
    [
        SignedCertificate.of(identity_of("shop"), NONCE, CERTIFICATE),
        SignedCertificate.of(BANK, b"1" * NONCE_BYTES, CERTIFICATE),
        SignedCertificate(b"another", SAID.signature),
        SignedCertificate(CERTIFICATE, BANK.sign(Domain.CHECK, NONCE + CERTIFICATE)),
        SignedCertificate.of(BANK, NONCE, bytes(LONGEST_CERTIFICATE + 1)),
    ],
    ids=["another key", "an earlier answer", "another certificate", "another purpose", "too long"],
)
def test_nothing_else_is(signed: SignedCertificate) -> None:
    assert read(signed) is None


@pytest.mark.parametrize("answer", [b"", b"\xc1", b"{}", msgspec.msgpack.encode([1, 2])])
def test_neither_is_what_cannot_be_read(answer: bytes) -> None:
    assert read_answer(answer, NONCE, [BANK.key]) is None
