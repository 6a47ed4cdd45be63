"""An outbox sends the same bytes again until they are received, and says who was not there when time is up."""

import threading
from collections.abc import Callable, Sequence

import msgspec
import pytest
from identities import identity_of

from parties.errors import PeerMisnamed, PeerUnreachable, PeerWireVersion, StorageFailed
from parties.trust.bundle import SignedReceipt
from parties.wire.envelopes import WIRE_VERSION, Bytes, Envelope, Outgoing, read_post
from parties.wire.outbox import Outbox
from parties.wire.receipts import Receipt, Reply
from parties.wire.transport import Answer, LocalTransport, TransportFailedError
from vfl.errors import JobError, PeerAborted, PeerTimeout, RemoteProtocolError

BOUND = 10.0


class Peer:
    """The other end of a transport: keeps what came and answers as a test wants."""

    def __init__(self, answer: Callable[[int, list[Envelope]], Answer]) -> None:
        self._answer = answer
        self.posts: list[bytes] = []
        self.came = threading.Semaphore(0)

    def post(self, pieces: Sequence[Bytes]) -> Answer:
        self.posts.append(b"".join(pieces))
        self.came.release()
        return self._answer(len(self.posts), list(read_post(self.posts[-1], "b")))

    def close(self) -> None:
        """Nothing is held open."""


def reply(status: int, **fields: object) -> Answer:
    return Answer(
        status, msgspec.json.encode(msgspec.convert({"party": "b", "wire_version": WIRE_VERSION} | fields, Reply))
    )


def send(peer: Peer, bodies: list[bytes], timeout_seconds: float = 5.0) -> tuple[Outbox, "Failures"]:
    failures = Failures()
    outbox = Outbox("b", peer, timeout_seconds, failures)
    lane = Outgoing("job", bytes(32), 1, identity_of("a"), "b")
    outbox.put([envelope for body in bodies for envelope in lane.seal("Kind", body)])
    return outbox, failures


class Failures:
    def __init__(self) -> None:
        self.errors: list[tuple[str, JobError]] = []
        self.came = threading.Event()

    def __call__(self, job: str, _attempt: int | None, error: JobError) -> None:
        self.errors.append((job, error))
        self.came.set()


def test_a_lost_answer_makes_the_same_bytes_come_again() -> None:
    def answer(number: int, _envelopes: list[Envelope]) -> Answer:
        if number < 3:
            raise TransportFailedError("lost")
        return reply(202)

    peer = Peer(answer)
    outbox, failures = send(peer, [b"one", b"two"])
    assert all(peer.came.acquire(timeout=BOUND) for _ in range(3))
    outbox.close()
    assert peer.posts[0] == peer.posts[1] == peer.posts[2]
    assert failures.errors == []


def test_a_full_mailbox_is_tried_again_and_what_was_received_is_not() -> None:
    def answer(number: int, envelopes: list[Envelope]) -> Answer:
        if number == 1:
            return reply(429, receipts=[Receipt("job", 1, 1)], code="mailbox_full")
        return reply(202)

    peer = Peer(answer)
    outbox, failures = send(peer, [b"one", b"two"])
    assert all(peer.came.acquire(timeout=BOUND) for _ in range(2))
    outbox.close()
    assert failures.errors == []


def test_a_gap_is_filled_from_the_number_that_is_due() -> None:
    def answer(number: int, envelopes: list[Envelope]) -> Answer:
        return reply(409, code="sequence_gap", expected=1) if number == 1 else reply(202)

    peer = Peer(answer)
    outbox, failures = send(peer, [b"one", b"two"])
    assert all(peer.came.acquire(timeout=BOUND) for _ in range(2))
    outbox.close()
    assert [envelope.header.sequence for envelope in read_post(peer.posts[1], "b")] == [1]
    assert failures.errors == []


def test_a_post_carries_sixteen_envelopes_of_one_job_at_most() -> None:
    peer = Peer(lambda _number, _envelopes: reply(202))
    outbox, _ = send(peer, [b"x"] * 40)
    outbox.close()
    counts = [len(list(read_post(post, "b"))) for post in peer.posts]
    assert sum(counts) == 40
    assert max(counts) <= 16


def test_a_peer_that_stays_away_is_named_when_time_is_up() -> None:
    def answer(_number: int, _envelopes: list[Envelope]) -> Answer:
        raise TransportFailedError("connection refused")

    outbox, failures = send(Peer(answer), [b"one"], timeout_seconds=0.1)
    assert failures.came.wait(BOUND)
    outbox.close()
    job, error = failures.errors[0]
    assert (job, type(error)) == ("job", PeerTimeout)
    assert "b stopped answering" in str(error)


def test_a_watched_peer_is_asked_whether_it_is_there_while_nothing_is_sent() -> None:
    def answer(_number: int, _envelopes: list[Envelope]) -> Answer:
        raise TransportFailedError("connection refused")

    failures = Failures()
    outbox = Outbox("b", Peer(answer), 0.1, failures)
    outbox.watch("job", lambda: Outgoing("job", bytes(32), 0, identity_of("a"), "b").seal("Ask", b"")[0])
    assert failures.came.wait(BOUND)
    outbox.close()
    assert isinstance(failures.errors[0][1], PeerTimeout)


def test_no_connection_is_silent_for_longer_than_proxies_allow_however_long_a_peer_may_be_away() -> None:
    seconds, peer = [0.0], Peer(lambda _number, _envelopes: reply(202))
    outbox = Outbox("b", peer, 3600.0, Failures(), clock=lambda: seconds[0])
    outbox.watch("job", lambda: Outgoing("job", bytes(32), 0, identity_of("a"), "b").seal("Ask", b"")[0])
    for _ in range(3):
        seconds[0] += 15.0
        outbox.put([])  # it looks at its clock
        assert peer.came.acquire(timeout=BOUND)
    outbox.close()
    assert len(peer.posts) == 3


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (reply(422, code="no_such_job"), PeerAborted),
        (reply(422, code="tampered_body", detail="no"), RemoteProtocolError),
        (reply(426, code="wire_version_differs", wire_version=WIRE_VERSION + 1), PeerWireVersion),
        (reply(409, code="sequence_gap", expected=0), RemoteProtocolError),
    ],
)
def test_a_refusal_ends_the_job_with_its_name(answer: Answer, error: type[JobError]) -> None:
    outbox, failures = send(Peer(lambda _number, _envelopes: answer), [b"one"])
    assert failures.came.wait(BOUND)
    outbox.close()
    assert [type(found) for _, found in failures.errors] == [error]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (reply(202, party="c"), PeerMisnamed),
        (reply(202, wire_version=WIRE_VERSION + 1), PeerWireVersion),
        (Answer(200, b"<html>"), PeerUnreachable),
        (Answer(200, b'{"party": "\xff", "wire_version": 1}'), PeerUnreachable),
    ],
)
def test_a_check_names_what_is_wrong_at_the_other_end(answer: Answer, error: type[JobError]) -> None:
    outbox = Outbox("b", LocalTransport(lambda _post: answer), 1.0, Failures())
    with pytest.raises(error):
        outbox.check()
    outbox.close()


def test_an_answer_nobody_can_read_does_not_end_the_courier() -> None:
    def answer(number: int, _envelopes: list[Envelope]) -> Answer:
        return Answer(202, b'{"party": "\xff", "wire_version": 1}') if number == 1 else reply(202)

    peer = Peer(answer)
    outbox, failures = send(peer, [b"one"])
    assert all(peer.came.acquire(timeout=BOUND) for _ in range(2))
    outbox.close()
    assert failures.errors == []


def test_a_peer_that_takes_no_further_job_is_quoted_by_code() -> None:
    outbox, failures = send(
        Peer(lambda _number, _envelopes: reply(409, code="too_many_jobs", detail="16 open")), [b"x"]
    )
    assert failures.came.wait(BOUND)
    outbox.close()
    assert [(error.code, str(error)) for _, error in failures.errors] == [
        ("too_many_jobs", "b takes no further job of ours now: 16 open")
    ]


def test_a_forgotten_job_has_nothing_more_to_say() -> None:
    held = threading.Event()

    def answer(_number: int, _envelopes: list[Envelope]) -> Answer:
        held.wait(BOUND)
        return reply(202)

    peer = Peer(answer)
    outbox, _ = send(peer, [b"x"] * 20)
    assert peer.came.acquire(timeout=BOUND)
    outbox.forget("job")
    held.set()
    outbox.close()
    assert len(peer.posts) == 1


def test_a_word_that_is_owed_is_said_before_another_is_made_for_a_peer_that_asks() -> None:
    def answer(_number: int, _envelopes: list[Envelope]) -> Answer:
        raise TransportFailedError("connection refused")

    peer = Peer(answer)
    outbox = Outbox("b", peer, 5.0, Failures())
    outbox.owe(Outgoing("job", bytes(32), 2, identity_of("a"), "b").seal("Abort", b"first")[0])
    assert peer.came.acquire(timeout=BOUND)
    outbox.remind("job", lambda: pytest.fail("the first word is still owed"))
    assert peer.came.acquire(timeout=BOUND)
    outbox.close()
    assert len(set(peer.posts)) == 1


class Books:
    """Of a party whose disk is full at the first so many times."""

    def __init__(self, full: int) -> None:
        self._full = full
        self.flushes = 0
        self.receipts: list[SignedReceipt] = []

    def flush(self) -> None:
        self.flushes += 1
        if self.flushes <= self._full:
            raise StorageFailed("the disk is full")

    def acknowledged(self, receipt: SignedReceipt) -> None:
        self.receipts.append(receipt)


def test_nothing_leaves_before_it_stands_in_the_books() -> None:
    books = Books(full=2)
    flushes: list[int] = []

    def answer(_number: int, _envelopes: list[Envelope]) -> Answer:
        flushes.append(books.flushes)
        return reply(202)

    peer = Peer(answer)
    outbox = Outbox("b", peer, BOUND, Failures(), books=books)
    outbox.put(Outgoing("job", bytes(32), 1, identity_of("a"), "b").seal("Kind", b"body"))
    assert peer.came.acquire(timeout=BOUND)
    outbox.close()
    assert flushes == [3]


def test_who_cannot_write_its_books_in_time_hears_that_it_is_its_own_disk() -> None:
    failures = Failures()
    outbox = Outbox("b", Peer(lambda *_: reply(202)), 0.1, failures, books=Books(full=1000))
    outbox.put(Outgoing("job", bytes(32), 1, identity_of("a"), "b").seal("Kind", b"body"))
    assert failures.came.wait(BOUND)
    outbox.close()
    assert isinstance(failures.errors[0][1], StorageFailed)


def test_a_receipt_is_kept_only_for_an_envelope_that_was_sent() -> None:
    (envelope,) = Outgoing("job", bytes(32), 1, identity_of("a"), "b").seal("Kind", b"body")
    good = {"job": "job", "attempt": 1, "next": 1, "last": envelope.digest, "signature": bytes(64)}
    signed = msgspec.convert([good, good | {"next": 9}, good | {"last": bytes(32)}], list[Receipt])
    books = Books(full=0)
    peer = Peer(lambda *_: reply(202, receipts=signed))
    outbox = Outbox("b", peer, BOUND, Failures(), books=books)
    outbox.put([envelope])
    assert peer.came.acquire(timeout=BOUND)
    outbox.close()
    assert [(receipt.receiver, receipt.next, receipt.last) for receipt in books.receipts] == [("b", 1, envelope.digest)]
