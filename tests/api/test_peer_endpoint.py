"""A feature party's real peer port against a label party that sends what it should not. The test plays that party."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from identities import identity_of
from label_side import Label, changed

from parties.private_files import write_private
from parties.storage.database import Job, Store
from parties.storage.ledger import UNCOUNTED_AT_ONCE
from parties.storage.pruning import MOST_PROPOSALS
from parties.trust.identity import Domain
from parties.wire.control import Abort, Ask, encode_control
from parties.wire.envelopes import ENVELOPES_LIMIT, PART_LIMIT, POST_LIMIT, WIRE_VERSION, Envelope
from parties.wire.receipts import Reply
from vfl.kinds import read_spec_as
from vfl.planning.training import resolve
from vfl.spec.training import TrainingSpec


@pytest.fixture(scope="module")
def feature(tmp_path_factory: pytest.TempPathFactory, new_party: Callable[..., Any], clinic: Path) -> Iterator[Any]:
    """A running feature party whose label party never answers; it goes on trying."""
    folder = tmp_path_factory.mktemp("alone") / "feature-party"
    server = new_party(folder, "feature-party", {"label-party": "https://127.0.0.1:9"}, {"clinic": "clinic.csv"})
    write_private(folder / "clinic.csv", clinic.read_bytes())
    write_private(folder / "party.toml", (folder / "party.toml").read_bytes().replace(b"seconds = 8", b"seconds = 60"))
    yield server.start()
    server.close()


@pytest.fixture
def label(feature: Any, job_spec: Callable[..., str]) -> Label:
    feature.grant(job_spec())
    return Label(feature.peer, job_spec())


def other_body(envelope: Envelope) -> Envelope:
    """With one bit of its body changed, and the header of the true one."""
    body = bytes(envelope.body)
    return dataclasses.replace(envelope, body=body[:-1] + bytes([body[-1] ^ 1]))


def state(feature: Any, label: Label) -> str:
    found: str = feature.job(label.job)["state"]
    return found


def test_a_proposal_is_received_once_however_often_it_comes(label: Label, feature: Any) -> None:
    proposal = label.proposal()
    for _ in range(3):
        answer = label.post(proposal)
        assert answer.status_code == 202
        (receipt,) = msgspec.json.decode(answer.content, type=Reply).receipts
        assert (receipt.job, receipt.attempt, receipt.next, receipt.last) == (label.job, 0, 1, proposal.digest)
        statement = receipt.statement("feature-party", "label-party")
        assert identity_of("feature-party").key.verifies(Domain.RECEIPT, statement, receipt.signature)
    jobs = feature.call("GET", "/v1/jobs").json()["jobs"]
    assert [job["id"] for job in jobs].count(label.job) == 1
    assert state(feature, label) == "proposed"


def test_a_gap_is_answered_with_the_number_that_is_due(label: Label) -> None:
    label.post(label.proposal())
    label.seal("Begin")
    answer = label.post(label.seal("Begin"))
    assert (answer.status_code, answer.json()["code"], answer.json()["expected"]) == (409, "sequence_gap", 1)


def test_two_envelopes_of_one_number_abort_the_job(label: Label, feature: Any) -> None:
    label.post(label.proposal())
    label.lane = label.new_lane(0)
    answer = label.post(label.seal("Proposal", b"another"))
    assert (answer.status_code, answer.json()["code"]) == (409, "equivocation")
    job = feature.job(label.job)
    assert (job["error"]["code"], job["error"]["side"]) == ("equivocation", "label-party")


def test_a_body_that_is_not_the_one_its_header_names_is_refused_and_the_true_one_is_still_welcome(
    label: Label, feature: Any
) -> None:
    label.post(label.proposal())
    abort = label.seal("Abort", encode_control(Abort("cancelled", "never mind")))
    tampered = other_body(abort)
    answer = label.post(tampered)
    assert (answer.status_code, answer.json()["code"]) == (422, "tampered_body")
    assert label.post(abort).status_code == 202
    assert state(feature, label) == "cancelled"


def test_a_proposal_is_not_looked_at_before_its_digest_holds(label: Label, feature: Any) -> None:
    proposal = label.proposal()
    tampered = other_body(proposal)
    assert label.post(tampered).json()["code"] == "tampered_body"
    assert feature.call("GET", f"/v1/jobs/{label.job}").status_code == 404
    assert label.post(proposal).status_code == 202


def test_a_control_message_sent_out_of_turn_ends_the_job(label: Label, feature: Any) -> None:
    label.post(label.proposal())
    label.lane = label.new_lane(1)
    assert label.post(label.seal("Begin", b"\x91\x01")).status_code == 202
    error = feature.job(label.job)["error"]
    assert (error["code"], error["side"]) == ("remote_protocol_error", "label-party")


def test_an_envelope_that_does_not_name_the_one_before_it_is_refused(label: Label) -> None:
    label.post(label.proposal())
    answer = label.post(changed(label.seal("Begin"), previous=bytes(32)))
    assert (answer.status_code, answer.json()["code"]) == (422, "broken_chain")


def test_an_abort_needs_nothing_of_a_broken_attempt(label: Label, feature: Any) -> None:
    label.post(label.proposal())
    label.lane = label.new_lane(1)
    assert label.post(label.seal("Abort", encode_control(Abort("diverged", "weights too large")))).status_code == 202
    assert feature.job(label.job)["error"]["message"] == "label-party ended the job: weights too large"


def test_a_code_that_this_release_does_not_know_is_shown_as_the_peers_words(label: Label, feature: Any) -> None:
    label.post(label.proposal())
    label.lane = label.new_lane(1)
    abort = Abort("all_is_well", "pay no attention")
    assert label.post(label.seal("Abort", encode_control(abort))).status_code == 202
    error = feature.job(label.job)["error"]
    assert (error["code"], error["side"]) == ("peer_aborted", "label-party")
    assert error["message"] == "label-party ended the job: pay no attention"


def test_an_abort_of_a_job_that_is_over_is_not_counted_where_it_cannot_be_read(label: Label, feature: Any) -> None:
    label.post(label.proposal())
    label.lane = label.new_lane(1)
    label.post(label.seal("Abort", encode_control(Abort("diverged", "weights too large"))))
    answer = label.post(label.seal("Abort", b"\xc1"))
    assert (answer.status_code, answer.json()["code"]) == (422, "unreadable_body")
    assert answer.json()["detail"].startswith("the Abort of label-party cannot be read")
    counted = [line["messages"] for line in feature.job(label.job)["traffic"] if line["kind"] == "Abort"]
    assert counted == [1]


def test_another_wire_version_is_told_the_version_spoken_here(label: Label) -> None:
    answer = label.post(changed(label.proposal(), wire_version=WIRE_VERSION + 1))
    assert (answer.status_code, answer.json()["code"]) == (426, "wire_version_differs")
    assert answer.json()["wire_version"] == WIRE_VERSION


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [("Embedding", 403, "illegal_route"), ("Acceptance", 403, "illegal_route"), ("Nonsense", 403, "illegal_route")],
)
def test_a_kind_this_role_may_not_send_is_refused(label: Label, kind: str, status: int, code: str) -> None:
    label.post(label.proposal())
    answer = label.post(label.seal(kind))
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_run_that_has_not_begun_takes_no_messages(label: Label) -> None:
    label.post(label.proposal())
    label.lane = label.new_lane(1)
    answer = label.post(label.seal("StepApplied"))
    assert (answer.status_code, answer.json()["code"]) == (409, "stale_attempt")


def test_a_stranger_and_an_envelope_for_somebody_else_are_alike_unknown(feature: Any, job_spec: Any) -> None:
    for ends in (("nobody", "feature-party"), ("label-party", "somebody")):
        stranger = Label(feature.peer, job_spec(), *ends)
        answer = stranger.post(stranger.proposal())
        assert (answer.status_code, answer.json()["code"]) == (401, "unknown_sender")


def test_an_unknown_job_is_refused(label: Label) -> None:
    answer = label.post(label.seal("Abort"))
    assert (answer.status_code, answer.json()["code"]) == (422, "no_such_job")


def test_a_proposal_that_is_not_what_its_header_says_is_refused(label: Label) -> None:
    for field in ({"job": "0" * 16 + "-" + "0" * 8}, {"job_digest": bytes(32)}):
        label.lane = label.new_lane(0)
        answer = label.post(changed(label.proposal(), **field))
        assert (answer.status_code, answer.json()["code"]) == (422, "unreadable_body")


@pytest.mark.parametrize("size", [1, 31, 33, 50_000])
def test_a_proposal_whose_commitment_has_another_length_is_refused(label: Label, feature: Any, size: int) -> None:
    answer = label.post(label.proposal(bytes(size)))
    assert (answer.status_code, answer.json()["code"]) == (422, "unreadable_body")
    assert feature.call("GET", f"/v1/jobs/{label.job}").status_code == 404


def test_lists_are_pages_without_specifications_however_many_jobs_a_peer_proposes(
    label: Label, feature: Any, job_spec: Any
) -> None:
    for _ in range(3):
        other = Label(feature.peer, job_spec())
        assert other.post(other.proposal()).status_code == 202
        other.lane = other.new_lane(1)
        assert other.post(other.seal("Abort", encode_control(Abort("cancelled", "never mind")))).status_code == 202
    page = feature.call("GET", "/v1/jobs", params={"limit": 2}).json()
    assert len(page["jobs"]) == 2
    assert "specification" not in page["jobs"][0]
    following = feature.call("GET", "/v1/jobs", params={"limit": 2, "after": page["next"]}).json()["jobs"]
    assert following
    assert not {job["id"] for job in page["jobs"]} & {job["id"] for job in following}


def test_a_header_whose_text_is_no_text_is_malformed(label: Label) -> None:
    proposal = label.proposal()
    header = bytes(proposal.encoded).replace(b"Proposal", b"Propos\xff\xfe")
    answer = label.post(dataclasses.replace(proposal, encoded=header))
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_envelope")


@pytest.mark.parametrize("post", [b"\x00", b"\xff\xff" + bytes(70_000), b"\x00\x04none", b"\x00\x01\x90"])
def test_noise_is_malformed(label: Label, post: bytes) -> None:
    answer = label.post_bytes(post)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_envelope")


def test_a_body_above_one_part_is_too_large(label: Label) -> None:
    answer = label.post(changed(label.proposal(), body_bytes=PART_LIMIT + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_a_post_carries_sixteen_envelopes_at_most(label: Label) -> None:
    crowd = [label.proposal()] * (ENVELOPES_LIMIT + 1)
    answer = label.post(*crowd)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_envelope")


def test_a_post_above_the_limit_is_cut_off_while_it_streams(label: Label) -> None:
    piece = bytes(1 << 20)
    answer = label.post_bytes(piece for _ in range((POST_LIMIT >> 20) + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_an_empty_post_and_hello_tell_name_and_version(label: Label, feature: Any) -> None:
    answer = label.post()
    assert (answer.status_code, answer.json()["party"], answer.json()["wire_version"]) == (
        202,
        "feature-party",
        WIRE_VERSION,
    )
    hello = httpx.get(f"{feature.peer}/peer/v1/hello", verify=feature.tls("label-party"), trust_env=False)
    assert hello.json() == {"wire_version": WIRE_VERSION, "party": "feature-party"}


def test_of_a_job_that_has_ended_here_the_coordinators_first_ending_is_taken_over_and_no_later_one(
    label: Label, feature: Any
) -> None:
    label.post(label.proposal())
    label.lane = label.new_lane(0)
    assert label.post(label.seal("Proposal", b"another")).json()["code"] == "equivocation"
    endings = [("cancelled", "never mind"), ("diverged", "weights too large")]
    for number in range(10):
        label.lane = label.new_lane(1)
        code, message = endings[number % 2]
        assert label.post(label.seal("Abort", encode_control(Abort(code, message)))).status_code == 202
    job = feature.job(label.job)
    assert (job["state"], job["error"]["code"]) == ("cancelled", "cancelled")
    events = feature.call("GET", f"/v1/jobs/{label.job}/events").json()["events"]
    assert [event["kind"] for event in events if event["kind"] in {"failed", "cancelled"}] == ["failed", "cancelled"]
    log = [line for line in (feature.folder / "server.log").read_text().splitlines() if label.job in line]
    assert len([line for line in log if "says another ending than before" in line]) == 1


def test_a_peers_new_proposals_push_out_its_oldest_that_came_to_nothing(
    tmp_path: Path, new_party: Callable[..., Any], job_spec: Callable[..., str]
) -> None:
    """The database holds as many as a peer may have; the peer then proposes some more over its line."""
    server = new_party(tmp_path / "feature", "feature-party", {"label-party": "https://127.0.0.1:9"}, {})
    store, spec = Store(server.folder), resolve(read_spec_as(TrainingSpec, job_spec()))
    of_peer = {"role": "feature", "party": "feature-party", "peers": ["label-party"], "spec_digest": ""}
    old = [f"old-{number:03}" for number in range(MOST_PROPOSALS)]
    for number, job in enumerate(old):
        created = f"2026-01-01T00:{number // 60:02}:{number % 60:02}+00:00"
        ended = of_peer | {"id": job, "name": "n", "state": "failed", "created_at": created}
        store.add(msgspec.convert(ended, Job), spec.encoded())
    store.close()
    server.start()
    try:
        proposed = [Label(server.peer, job_spec()) for _ in range(3)]
        for label in proposed:
            assert label.post(label.proposal()).status_code == 202
            server.over(label.job)  # the party has no such data set
        answers = {job: server.call("GET", f"/v1/jobs/{job}").status_code for job in old}
        assert [job for job, status in answers.items() if status == 404] == old[
            :2
        ]  # room is made before the next is stored
        assert all(server.job(label.job)["state"] == "failed" for label in proposed)
    finally:
        server.close()


def test_a_number_that_no_receipt_could_count_further_and_a_time_that_is_none_are_malformed(
    label: Label, feature: Any
) -> None:
    label.post(label.proposal())
    beyond: list[dict[str, Any]] = [{"sequence": (1 << 64) - 1}, {"attempt": 1 << 60}]
    beyond += [{"sent_at": float("nan")}, {"sent_at": 1e300}]
    for word in (Ask(), Abort("cancelled", "never mind")):
        for fields in beyond:
            answer = label.post(changed(label.seal(word.kind, encode_control(word)), **fields))
            assert (answer.status_code, answer.json()["code"]) == (400, "malformed_envelope")
    assert state(feature, label) == "proposed"
    label.post(label.seal("Abort", encode_control(Abort("cancelled", "never mind"))))


def test_a_peer_cannot_fill_the_audit_log_with_questions_that_differ(
    tmp_path: Path, new_party: Callable[..., Any], job_spec: Callable[..., str]
) -> None:
    """Each is signed and allowed, stands outside the count, and would be one more leaf that nobody may delete."""
    server = new_party(tmp_path / "feature", "feature-party", {"label-party": "https://127.0.0.1:9"}, {}).start()
    try:
        label = Label(server.peer, job_spec())
        label.post(label.proposal())
        server.over(label.job)  # the party has no such data set
        answers = []
        for start in range(0, 2 * UNCOUNTED_AT_ONCE, ENVELOPES_LIMIT):
            numbers = range(start, start + ENVELOPES_LIMIT)
            question = label.seal("Ask", encode_control(Ask()))
            answers.append(label.post(*(changed(question, sequence=number) for number in numbers)))
        assert (answers[0].status_code, answers[-1].status_code) == (202, 429)
        assert answers[-1].json()["code"] == "mailbox_full"
        leaves = server.call("GET", "/v1/audit/head").json()["size"]
        assert UNCOUNTED_AT_ONCE <= leaves < UNCOUNTED_AT_ONCE + 200
    finally:
        server.close()
