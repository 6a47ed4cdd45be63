"""A witness signs a log's head only where it extends the head that it signed last (c2sp.org/tlog-witness)."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from parties.trust.errors import MalformedNote, NoteNotSigned, RewrittenLog, StaleHead, UnknownLog
from parties.trust.merkle import Place, consistency_proof, grow, leaf_hash, root
from parties.trust.notes import Checkpoint, Note, SignatureType, VerifierKey
from parties.trust.witness import AddCheckpoint, add_cosignatures, check

REQUEST = """old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=
"""  # noqa: E501 - as published, like the answer
ANSWER = """— witness.example/w1 CMp+6LWBU0anHGH5aNDTJkH/gj79sG+T6+iP2ThYN5krrDJbR1HDnucjL39QsZTSvVjyQLrdk3DXDqI5G2HgLatVs0pWh6Up69HVOw==
— witness.example/w1 I7rEps0pvK2UqkS2gSpVUDhrhVtQV9lgF6pRrWAvjJHjyWpW7VcE3SiOlVlbQNt64vWhO+DlkL0+UfzuOBMh9ChdMkP1vi/lCAsmlw==
— witness.example/w2 AWui8Sk55XjYLOijihBjhqEH6nS1ndDymE0a+6idX7pLcnoB+dhnz0854aLZgrrKbYKA7nC3HNJhm/kWl7oJlqU3rXXvpysAdyP3wQ==
"""  # noqa: E501

ORIGIN = "bank/audit-log"
LOG, COSIGNER = (Ed25519PrivateKey.from_private_bytes(bytes([seed] * 32)) for seed in (1, 2))
LOG_KEY = VerifierKey(ORIGIN, SignatureType.ED25519, LOG.public_key().public_bytes_raw())
WITNESS_KEY = VerifierKey("clinic/cosigner", SignatureType.COSIGNATURE, COSIGNER.public_key().public_bytes_raw())


class Log:
    def __init__(self, *leaves: bytes) -> None:
        self._stored: dict[Place, bytes] = grow(0, map(leaf_hash, leaves), self.lookup)

    def lookup(self, place: Place) -> bytes:
        return self._stored[place]

    def head(self, size: int) -> Checkpoint:
        return Checkpoint(ORIGIN, size, root(size, self.lookup))

    def signed(self, size: int) -> Note:
        text = str(self.head(size))
        return Note(text).signed(LOG_KEY.sign(text, LOG.sign))

    def request(self, old: int, new: int) -> AddCheckpoint:
        return AddCheckpoint(old, tuple(consistency_proof(old, new, self.lookup)), self.signed(new))


HONEST = Log(*(b"%d" % number for number in range(20)))
FORKED = Log(*(b"%d" % number for number in (0, 1, 2, 30, *range(4, 20))))


def test_the_published_request_and_answer_are_read_and_written_as_they_were() -> None:
    request = AddCheckpoint.parse(REQUEST.encode())
    assert (request.old_size, len(request.path)) == (20852014, 4)
    assert str(request) == REQUEST
    assert add_cosignatures(request.checkpoint, ANSWER.encode(), []) == request.checkpoint


@pytest.mark.parametrize(
    "broken",
    [
        REQUEST.replace("old ", ""),
        REQUEST.replace("old 20852014", "old 020852014"),
        REQUEST.replace("old 20852014\n", ""),
        REQUEST.replace("PlRN", "PlRNPlRN"),
        REQUEST.replace("\n\n", "\n", 1),
        REQUEST.replace("\n\n", "\n\n\n", 1),
        REQUEST.replace("old 20852014\n", "old 20852014\n" + "PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n" * 60),
        "",
    ],
)
def test_a_request_that_is_not_written_as_it_should_be_is_refused(broken: str) -> None:
    with pytest.raises(MalformedNote):
        AddCheckpoint.parse(broken.encode())


@pytest.mark.parametrize(("old", "new"), [(0, 1), (0, 20), (3, 8), (8, 8), (8, 20), (13, 14)])
def test_a_head_that_extends_the_last_one_is_signed(old: int, new: int) -> None:
    request = AddCheckpoint.parse(str(HONEST.request(old, new)).encode())
    head = check(request, LOG_KEY, HONEST.head(old) if old else None)
    assert head == HONEST.head(new)
    line = WITNESS_KEY.cosign(str(head), 1_700_000_000, COSIGNER.sign)
    cosigned = add_cosignatures(request.checkpoint, str(line).encode(), [WITNESS_KEY])
    assert cosigned.verify(LOG_KEY)
    assert cosigned.verify(WITNESS_KEY) == line


def test_the_log_of_a_stranger_is_not_signed() -> None:
    for key in (None, WITNESS_KEY):
        with pytest.raises(UnknownLog) as refused:
            check(HONEST.request(0, 8), key, None)
        assert refused.value.status == 404


def test_a_head_that_its_log_did_not_sign_is_not_signed() -> None:
    by_another = VerifierKey(ORIGIN, SignatureType.ED25519, COSIGNER.public_key().public_bytes_raw())
    with pytest.raises(NoteNotSigned) as refused:
        check(HONEST.request(0, 8), by_another, None)
    assert refused.value.status == 403


@pytest.mark.parametrize("old", [0, 3, 9])
def test_a_proof_from_another_size_is_answered_with_the_size(old: int) -> None:
    with pytest.raises(StaleHead) as refused:
        check(HONEST.request(old, 20), LOG_KEY, HONEST.head(8))
    assert (refused.value.status, refused.value.size) == (409, 8)


@pytest.mark.parametrize(("new", "status"), [(20, 422), (8, 409)])
def test_a_log_whose_past_was_changed_is_not_signed(new: int, status: int) -> None:
    with pytest.raises(RewrittenLog) as refused:
        check(FORKED.request(8, new), LOG_KEY, HONEST.head(8))
    assert refused.value.status == status


def test_a_log_that_shrinks_is_not_signed() -> None:
    with pytest.raises(MalformedNote):
        check(AddCheckpoint(8, (), HONEST.signed(7)), LOG_KEY, HONEST.head(8))


def test_a_first_head_comes_without_a_proof() -> None:
    with pytest.raises(MalformedNote, match="empty"):
        check(AddCheckpoint(0, (bytes(32),), HONEST.signed(7)), LOG_KEY, None)


def test_a_cosignature_over_another_head_is_not_taken() -> None:
    line = WITNESS_KEY.cosign(str(HONEST.head(7)), 1, COSIGNER.sign)
    with pytest.raises(NoteNotSigned):
        add_cosignatures(HONEST.signed(8), str(line).encode(), [WITNESS_KEY])
