"""What a peer makes of a statement that one identity key follows another."""

import msgspec
import pytest
from identities import identity_of

from parties.trust.errors import RotationRefused
from parties.trust.identity import Domain, Identity
from parties.trust.rotation import Rotation, SignedRotation, new_rotations

BANK = "bank"
NOW = 1_800_000_000


def key(letter: str) -> Identity:
    return Identity(BANK, identity_of(letter).private)


def rotation(old: str, new: str, made_at: int = NOW) -> SignedRotation:
    return SignedRotation.of(key(old), key(new), made_at)


def known(*signed: SignedRotation) -> dict[bytes, SignedRotation]:
    return {each.read().old: each for each in signed}


A, B, C = (key(letter).key.raw for letter in "abc")
A_TO_B, B_TO_C = rotation("a", "b"), rotation("b", "c", NOW + 1)


def test_the_key_that_is_pinned_names_the_one_that_follows() -> None:
    assert new_rotations(BANK, A, {}, [A_TO_B]) == [A_TO_B]
    assert (A_TO_B.read().old, A_TO_B.read().new) == (A, B)


def test_a_peer_that_missed_several_follows_them_all_at_once() -> None:
    assert new_rotations(BANK, A, {}, [A_TO_B, B_TO_C]) == [A_TO_B, B_TO_C]


def test_what_was_heard_before_changes_nothing() -> None:
    """The answer to it was lost."""
    assert new_rotations(BANK, B, known(A_TO_B), [A_TO_B]) == []
    assert new_rotations(BANK, B, known(A_TO_B), [A_TO_B, B_TO_C]) == [B_TO_C]


def refusal(pinned: bytes, before: dict[bytes, SignedRotation], *told: SignedRotation) -> str:
    with pytest.raises(RotationRefused) as refused:
        new_rotations(BANK, pinned, before, told)
    return refused.value.rule


def test_an_older_statement_is_refused() -> None:
    assert refusal(C, known(A_TO_B, B_TO_C), A_TO_B) == "older"


def test_a_second_key_that_would_follow_the_same_is_refused() -> None:
    assert refusal(B, known(A_TO_B), rotation("a", "c")) == "forked"
    assert refusal(B, known(A_TO_B), rotation("a", "b", NOW + 5)) == "forked"


def test_a_statement_about_another_party_or_another_key_is_refused() -> None:
    of_telco = SignedRotation.of(identity_of("telco"), Identity("telco", identity_of("b").private), NOW)
    assert refusal(identity_of("telco").key.raw, {}, of_telco) == "foreign"
    assert refusal(C, {}, A_TO_B) == "foreign"


def test_a_refused_statement_behind_a_good_one_refuses_both() -> None:
    assert refusal(A, {}, A_TO_B, rotation("a", "c")) == "foreign"
    assert refusal(A, {}, A_TO_B, msgspec.structs.replace(B_TO_C, by_new=bytes(64))) == "unsigned"


@pytest.mark.parametrize("signer", ["by_old", "by_new"])
def test_both_keys_must_have_signed(signer: str) -> None:
    other = key("c").sign(Domain.ROTATION, A_TO_B.encoded)
    assert refusal(A, {}, msgspec.structs.replace(A_TO_B, **{signer: other})) == "unsigned"
    without_purpose = {"by_old": key("a"), "by_new": key("b")}[signer].sign(Domain.GRANT, A_TO_B.encoded)
    assert refusal(A, {}, msgspec.structs.replace(A_TO_B, **{signer: without_purpose})) == "unsigned"


def signed(encoded: bytes) -> SignedRotation:
    return SignedRotation(encoded, key("a").sign(Domain.ROTATION, encoded), key("b").sign(Domain.ROTATION, encoded))


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"\xc1",
        A_TO_B.encoded + b"\0",
        msgspec.msgpack.encode([BANK, A, B, B]),
        msgspec.msgpack.encode([BANK, A, B, B, NOW, 1]),
        msgspec.msgpack.encode([BANK, A, B[:31], B, NOW]),
        msgspec.msgpack.encode([BANK, A, B, B, -1]),
        msgspec.msgpack.encode(Rotation(BANK, A, A, A, NOW)),
        A_TO_B.encoded[:-5] + b"\xd3" + bytes(4) + A_TO_B.encoded[-4:],
    ],
)
def test_what_is_not_written_as_a_statement_is_refused(encoded: bytes) -> None:
    assert refusal(A, {}, signed(encoded)) == "unreadable"


def test_nothing_at_all_is_no_statement() -> None:
    assert refusal(A, {}) == "unreadable"
