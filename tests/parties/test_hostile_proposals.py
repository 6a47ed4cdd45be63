"""A feature party whose label party proposes what it should not: the test is that label party, without a network."""

import hashlib
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from identities import acquaint, identity_of, signed_by
from played_peers import until
from registered_tables import register

from parties.party import Party
from parties.server_settings import ServerSettings
from parties.settings import Acceptance, PartySettings
from parties.trust.contract import Signed
from parties.trust.identity import Domain
from parties.wire.control import Acceptance as Accepted
from parties.wire.control import Begin, Proposal, Refusal, commitment_to, decode_control, encode_control, job_id
from parties.wire.envelopes import (
    PART_LIMIT,
    UNASKED_BYTES,
    WIRE_VERSION,
    Bytes,
    Envelope,
    Incoming,
    Outgoing,
    read_post,
)
from parties.wire.rate_limit import PROPOSALS
from parties.wire.receipts import Reply
from parties.wire.transport import Answer
from vfl.kinds import read_spec_as
from vfl.planning.training import resolve
from vfl.spec.training import TrainingSpec

BOUND_SECONDS = 30.0
SPEC = """
job = {name = "hostile", task = "regression"}
roster = {label = "bank", features = ["telco"]}
train = {epochs = 1, batch_rows = 32}
encryption = {scheme = "none"}
[data]
bank = {dataset = "table", label = "y"}
telco = {dataset = "table", columns = ["x0"]}
"""


class Bank:
    """What the label party hears, and how it speaks."""

    def __init__(self) -> None:
        self.heard: list[Envelope] = []
        self.changed = threading.Condition()
        self.telco: Party

    def post(self, pieces: Sequence[Bytes]) -> Answer:
        with self.changed:
            self.heard += list(read_post(b"".join(pieces), "bank"))
            self.changed.notify_all()
        return Answer(202, msgspec.json.encode(Reply("bank", WIRE_VERSION)))

    def close(self) -> None:
        """Nothing is held open."""

    def answer_to(self, job: str) -> Accepted | Refusal:
        def found() -> Envelope | None:
            return next((e for e in self.heard if e.header.job == job and e.header.attempt == 0), None)

        with self.changed:
            assert self.changed.wait_for(lambda: found() is not None, BOUND_SECONDS)
            envelope = found()
        assert envelope is not None
        answer = decode_control(envelope.header.sender, envelope.header.kind, bytes(envelope.message))
        assert isinstance(answer, Accepted | Refusal)
        return answer

    def say(self, *envelopes: Envelope) -> Reply:
        answer = self.telco.deliver(b"".join(bytes(piece) for e in envelopes for piece in e.pieces()))
        return msgspec.json.decode(answer.body, type=Reply)


class Offer:
    def __init__(self, text: str = SPEC, change: Callable[[TrainingSpec], TrainingSpec] = lambda spec: spec) -> None:
        self.spec, self.share = change(resolve(read_spec_as(TrainingSpec, text))), secrets.token_bytes(32)
        commitment = commitment_to(self.share)
        self.job = job_id(self.spec.digest(), commitment)
        proposal = Proposal(self.spec.encoded(), commitment, self.signed("bank"))
        self.envelope = self.lane(0).seal("Proposal", encode_control(proposal))[0]

    def signed(self, name: str) -> Signed:
        return signed_by(name, self.job, self.spec.digest())

    def begin(self, answer: Accepted) -> Begin:
        return Begin({"bank": self.share, "telco": answer.share}, {"bank": self.signed("bank"), "telco": answer.signed})

    def lane(self, attempt: int) -> Outgoing:
        return Outgoing(self.job, self.spec.digest(), attempt, identity_of("bank"), "telco")


@pytest.fixture
def bank(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bank]:
    """Its peer has 120 rows, and asks for 100 unless a test says otherwise."""
    values = np.random.default_rng(0).normal(size=(120, 1))
    (tmp_path / "table.csv").write_text("\n".join(["id,x0", *(f"{i},{x}" for i, (x,) in enumerate(values))]))
    fewest = getattr(request, "param", 100)
    settings = PartySettings(
        name="telco",
        server=ServerSettings(jobs_per_peer=2),
        acceptance=Acceptance(peers=("bank",), datasets=("table",), schemes=("none",), minimum_rows=fewest),
    )
    bank = Bank()
    register(tmp_path, {"table": "table.csv"})
    acquaint(tmp_path, {"bank": "127.0.0.1:9"})
    bank.telco = Party(tmp_path, settings, identity_of("telco"), lambda _name: bank)
    if fewest <= 120:
        bank.telco.consent.grant(bank.telco.request(SPEC), uses="standing", changes={"maximum_opened_values": 10**6})
    yield bank
    bank.telco.close()


def test_a_second_beginning_starts_no_second_worker(bank: Bank) -> None:
    offer = Offer()
    bank.say(offer.envelope)
    answer = bank.answer_to(offer.job)
    assert isinstance(answer, Accepted)
    lane, begin = offer.lane(1), encode_control(offer.begin(answer))
    bank.say(*(lane.seal("Begin", begin)[0] for _ in range(4)))
    bank.telco.cancel(offer.job)
    kinds = [event.kind for event in bank.telco.events(offer.job, 0, 0)]
    assert kinds.count("started") <= 1
    started = [thread for thread in threading.enumerate() if thread.name.startswith("from worker")]
    for thread in started:
        thread.join(BOUND_SECONDS)
        assert not thread.is_alive()


@pytest.mark.parametrize("chosen", ["its own share", "the other's share"])
def test_a_label_party_that_would_choose_which_rows_meet_in_a_batch_begins_nothing(bank: Bank, chosen: str) -> None:
    """Whoever chose the joint seed could let the same rows meet again and again."""
    offer = Offer()
    bank.say(offer.envelope)
    answer = bank.answer_to(offer.job)
    assert isinstance(answer, Accepted)
    begin = offer.begin(answer)
    name = "bank" if chosen == "its own share" else "telco"
    other = msgspec.structs.replace(begin, shares=begin.shares | {name: secrets.token_bytes(32)})
    bank.say(*offer.lane(1).seal("Begin", encode_control(other)))
    ended = until(bank.telco, offer.job, lambda job: job.over)
    assert ended.error is not None
    assert (ended.error["code"], ended.error["side"], ended.started_at) == ("remote_protocol_error", "bank", None)
    assert "opened another share of the seed than it had committed to" in ended.error["message"]


def begun(bank: Bank) -> tuple[Offer, Outgoing]:
    """A job that runs at telco, and the lane of its first attempt."""
    offer = Offer()
    bank.say(offer.envelope)
    answer = bank.answer_to(offer.job)
    assert isinstance(answer, Accepted)
    lane = offer.lane(1)
    assert bank.say(*lane.seal("Begin", encode_control(offer.begin(answer)))).code == ""
    until(bank.telco, offer.job, lambda job: job.worker_pid is not None)
    return offer, lane


def test_a_message_larger_than_the_job_can_need_is_refused_with_its_first_part(bank: Bank) -> None:
    """RowsDigest says two small things: 250 parts of 4 MiB would lie in memory until the last had come."""
    _, lane = begun(bank)
    first, *_ = lane.seal("RowsDigest", bytes(3 * PART_LIMIT))
    reply = bank.say(first)
    assert (reply.code, reply.receipts) == ("too_large", ())
    assert "RowsDigest has at most" in reply.detail


def test_a_peer_that_may_send_nothing_now_cannot_make_a_server_hold_a_body(bank: Bank) -> None:
    offer = Offer()
    (large,) = offer.lane(0).seal("Proposal", bytes(PART_LIMIT))
    for pieces in (large.pieces(), (b"\x01\x00", bytes(PART_LIMIT))):
        post = bank.telco.open_post()
        for piece in pieces:
            for start in range(0, len(piece), 1 << 16):
                if post.add(piece[start : start + (1 << 16)]):
                    post.act()
        assert len(post._reader._bytes) <= UNASKED_BYTES
        assert post.end().status in {400, 413}


def test_parts_of_a_message_count_and_are_let_go_when_the_job_ends(bank: Bank) -> None:
    incoming = Incoming()
    parts = Offer().lane(1).seal("Embedding", bytes(3 * PART_LIMIT))
    for part in parts[:2]:
        assert incoming.is_new(part)
        incoming.accept(part)
    assert incoming.begun_bytes == 3 * PART_LIMIT
    incoming.drop_parts()
    assert incoming.begun_bytes == 0


def sent_at(time_of_sending: float) -> Envelope:
    offer = Offer()
    header = msgspec.structs.replace(offer.envelope.header, sent_at=time_of_sending)
    encoded = msgspec.msgpack.encode(header)
    signature, digest = identity_of("bank").sign(Domain.ENVELOPE, encoded), hashlib.sha256(encoded).digest()
    return Envelope(header, encoded, signature, digest, offer.envelope.body)


@pytest.mark.parametrize("seconds", [-301.0, 31.0, -1e9, 9e10])
def test_an_old_proposal_that_comes_again_and_one_from_the_future_open_no_job(bank: Bank, seconds: float) -> None:
    reply = bank.say(sent_at(time.time() + seconds))
    assert reply.code == "proposal_out_of_time"
    assert "somebody sends again, or one of the two clocks is wrong" in reply.detail
    assert bank.telco.jobs() == []


@pytest.mark.parametrize("time_of_sending", [-1e18, -1.0, 1e300, float("nan"), float("inf")])
def test_a_proposal_of_a_time_that_is_none_is_malformed_and_opens_no_job(bank: Bank, time_of_sending: float) -> None:
    assert bank.say(sent_at(time_of_sending)).code == "malformed_envelope"
    assert bank.telco.jobs() == []


def test_a_peer_has_so_many_jobs_open_and_no_more(bank: Bank) -> None:
    first, second, third = Offer(), Offer(), Offer()
    assert [bank.say(offer.envelope).code for offer in (first, second, third)] == ["", "", "too_many_jobs"]
    assert {job.id for job in bank.telco.jobs()} == {first.job, second.job}
    bank.telco.cancel(first.job)
    assert bank.say(third.envelope).code == ""


def test_a_flood_of_proposals_that_are_refused_leaves_a_bounded_number_of_jobs(bank: Bank) -> None:
    codes = []
    for _ in range(PROPOSALS + 20):
        offer = Offer(SPEC.replace('"none"', '"ckks"'))
        codes.append(bank.say(offer.envelope).code)
        if not codes[-1]:
            assert isinstance(bank.answer_to(offer.job), Refusal)
    assert codes[0] == ""
    assert codes[-1] == "too_many_jobs"
    assert len(bank.telco.jobs(limit=1000)) == codes.count("")


@pytest.mark.parametrize(
    "old_and_new",
    [
        ("epochs = 1", f"epochs = {2**63}"),
        ('"hostile"', '"\\u001b[31mhostile"'),
        ('task = "regression"', 'task = "regression", deadline_seconds = 10000000000000'),
    ],
)
def test_a_proposal_beyond_what_a_party_can_store_wait_for_or_show_is_unreadable(
    bank: Bank, old_and_new: tuple[str, str]
) -> None:
    reply = bank.say(Offer(SPEC.replace(*old_and_new)).envelope)
    assert reply.code == "unreadable_body"
    assert "\x1b" not in reply.detail
    assert bank.telco.jobs() == []


@pytest.mark.parametrize(
    ("old_and_new", "code", "told"),
    [
        (('columns = ["x0"]', 'columns = ["id"]'), "id_among_columns", "invalid_data"),
        (('columns = ["x0"]', 'columns = ["x1"]'), "unknown_column", "invalid_data"),
        (('telco = {dataset = "table"', 'telco = {dataset = "../table"'), "policy_refused", "policy_refused"),
        (("batch_rows = 32", "batch_rows = 1"), "impossible_job", "impossible_job"),
    ],
)
def test_a_refusal_names_its_reason_and_nothing_else_of_this_party(
    bank: Bank, old_and_new: tuple[str, str], code: str, told: str
) -> None:
    offer = Offer(SPEC.replace("epochs = 1", "epochs = 100000").replace(*old_and_new))
    bank.say(offer.envelope)
    answer = bank.answer_to(offer.job)
    assert isinstance(answer, Refusal)
    assert answer.code == told
    for secret in ("table.csv", "120", "x0"):
        assert secret not in answer.message + answer.fix
    (ended,) = bank.telco.events(offer.job, 0, BOUND_SECONDS)
    assert (ended.kind, ended.data["code"]) == ("failed", code)


@pytest.mark.parametrize("bank", [777], indirect=True)
def test_a_refusal_by_a_number_names_the_rule_and_neither_the_limit_nor_what_fell_short_of_it(bank: Bank) -> None:
    offer = Offer()
    bank.say(offer.envelope)
    answer = bank.answer_to(offer.job)
    assert isinstance(answer, Refusal)
    assert (answer.code, answer.message) == ("policy_refused", "telco refuses by acceptance.minimum_rows")
    assert not re.search(r"\d", answer.message + answer.fix)
    (ended,) = bank.telco.events(offer.job, 0, BOUND_SECONDS)
    assert "its table has 120 rows, fewer than 777" in ended.data["message"]
