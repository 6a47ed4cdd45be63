"""Two real servers, of which one gets a new identity key: who believes which key, when, and what goes on meanwhile."""

import base64
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from command_line import at_terminal, run
from faulty_line import FEATURE, LABEL
from identities import identity_of, tls_of
from label_side import Label
from logs_of_servers import Json, Two, entries, export, problems, settle, trained

from parties.key_rotation import Statements
from parties.settings import load, load_identity
from parties.trust.certificates import client_context, issue_leaf
from parties.trust.identity import Identity
from parties.trust.rotation import SignedRotation
from parties.wire.transport import ROTATION_ROUTE

TOLD_SECONDS = 60.0
A_DAY_AND_MORE = 25


@pytest.fixture
def two(
    tmp_path: Path,
    new_party: Callable[..., Any],
    some_ports: Callable[[int], list[int]],
    files: tuple[Path, Path],
) -> Iterator[Two]:
    """Two servers with clocks that a test can move."""
    ports = some_ports(4)
    urls = {LABEL: f"https://127.0.0.1:{ports[1]}", FEATURE: f"https://127.0.0.1:{ports[3]}"}
    with ExitStack() as stack:
        label = new_party(tmp_path / LABEL, LABEL, {FEATURE: urls[FEATURE]}, {"patients": str(files[0])}, ports[:2])
        feature = new_party(tmp_path / FEATURE, FEATURE, {LABEL: urls[LABEL]}, {"clinic": str(files[1])}, ports[2:])
        label.granting = [feature]
        both = {LABEL: label, FEATURE: feature}
        move_clocks(both, 0)
        for party in both.values():
            stack.callback(party.close)
            party.start()
        yield both


def move_clocks(two: Two, hours: float) -> None:
    for party in two.values():
        (party.folder / "hours_ahead.part").write_text(str(hours))
        (party.folder / "hours_ahead.part").rename(party.folder / "hours_ahead")


def rotate(party: Any) -> Json:
    answer = party.call("POST", "/v1/key/rotate")
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


def key(party: Any) -> Json:
    found: Json = party.call("GET", "/v1/key").json()
    return found


def peer(party: Any, name: str) -> Json:
    (found,) = [each for each in party.call("GET", "/v1/peers").json()["peers"] if each["name"] == name]
    return dict(found)


def answers(party: Any, name: str) -> bool:
    return bool(party.call("POST", f"/v1/peers/{name}/check").status_code == 200)


def told(party: Any) -> None:
    """Until its peer knows its key."""
    deadline = time.monotonic() + TOLD_SECONDS
    while not all(each["knows"] for each in key(party)["peers"]):
        assert time.monotonic() < deadline, key(party)
        time.sleep(0.2)


def present(party: Any) -> Identity:
    return load_identity(party.folder, load(party.folder))


def tls_by(identity: Identity, called: Identity) -> ssl.SSLContext:
    return client_context(issue_leaf(identity.private, identity.name), (called.key,))


def test_peers_take_the_new_key_without_another_enrolment_and_a_job_runs(
    two: Two, job_spec: Callable[..., str], tmp_path: Path
) -> None:
    trained(two, job_spec(epochs="1"))
    for name, party in two.items():
        (other,) = (each for each in two if each != name)
        before = key(party)
        after = rotate(party)
        assert after["peers"] == [{"name": other, "knows": True, "problem": ""}]
        assert [each["fingerprint"] for each in after["former"]] == [before["fingerprint"]]
        assert peer(two[other], name)["fingerprint"] == after["fingerprint"] != before["fingerprint"]
        assert peer(two[other], name)["former_key_until"] == after["former"][0]["until"]
        assert answers(party, other)
        assert answers(two[other], name)
    trained(two, job_spec(epochs="1"))
    settle(two)
    assert not problems(export(two, tmp_path / "bundles"))
    for party in two.values():
        logged = {entry["peer"]: entry["detail"]["key"] for entry in entries(party) if entry["event"] == "key_rotated"}
        assert len(logged) == 2  # its own and its peer's
        assert logged[""] == key(party)["key"]


def test_a_job_that_runs_goes_on_while_both_keys_change(two: Two, job_spec: Callable[..., str], tmp_path: Path) -> None:
    job = two[LABEL].submit(job_spec(epochs="3000"))["id"]
    for name in (LABEL, FEATURE, LABEL):
        step = two[name].wait(job, lambda found: bool(found["step"]))["step"]
        rotate(two[name])
        two[name].wait(job, lambda found, step=step: found["step"] > step)
        assert [party.job(job)["state"] for party in two.values()] == ["running", "running"]
    two[LABEL].call("POST", f"/v1/jobs/{job}/cancel")
    assert [party.over(job)["state"] for party in two.values()] == ["cancelled", "cancelled"]
    settle(two)
    assert not problems(export(two, tmp_path / "bundles"))


def test_a_standing_grant_that_the_old_key_has_signed_still_approves(two: Two, job_spec: Callable[..., str]) -> None:
    spec = job_spec(epochs="1")
    assert two[FEATURE].grant(spec).status_code == 201
    two[LABEL].granting = []
    rotate(two[FEATURE])
    two[FEATURE].stop()
    move_clocks(two, A_DAY_AND_MORE)
    two[FEATURE].start()
    job = trained(two, spec)
    assert two[FEATURE].job(job)["approval"]["by"] == "grant"


def test_the_old_key_counts_for_a_day_and_then_nowhere(two: Two, job_spec: Callable[..., str]) -> None:
    feature, old = two[FEATURE], identity_of(LABEL)
    rotate(two[LABEL])
    new = present(two[LABEL])
    with httpx.Client(verify=tls_of(LABEL, FEATURE), trust_env=False) as opened:
        url = f"{feature.peer}/peer/v1/hello"
        assert opened.get(url).status_code == 200
        assert Label(feature.peer, job_spec()).post().status_code == 202  # with the certificate of the old key
        move_clocks(two, A_DAY_AND_MORE)
        assert opened.get(url).json()["code"] == "unknown_sender"  # over a connection that was open before
        with pytest.raises(httpx.TransportError):
            httpx.get(url, verify=tls_of(LABEL, FEATURE), trust_env=False)
    signed_by_old = Label(feature.peer, job_spec()).proposal()
    with httpx.Client(verify=tls_by(new, identity_of(FEATURE)), trust_env=False) as client:
        answer = client.post(f"{feature.peer}/peer/v1/envelopes", content=signed_by_old.as_sent())
        assert (answer.status_code, answer.json()["code"]) == (401, "unknown_sender")
        assert client.get(url).status_code == 200
    assert answers(feature, LABEL)
    assert peer(feature, LABEL)["former_key_until"] == ""
    assert old.private.private_bytes_raw() != new.private.private_bytes_raw()
    trained(two, job_spec(epochs="1"))


def test_a_peer_that_is_away_is_told_when_it_is_back_also_after_a_restart_and_a_second_rotation(
    two: Two, job_spec: Callable[..., str]
) -> None:
    two[FEATURE].stop()
    (unknowing,) = rotate(two[LABEL])["peers"]
    assert (unknowing["name"], unknowing["knows"], bool(unknowing["problem"])) == (FEATURE, False, True)
    two[LABEL].stop()
    two[LABEL].start()
    rotate(two[LABEL])
    two[FEATURE].start()
    told(two[LABEL])
    assert [entry["event"] for entry in entries(two[FEATURE])] == ["key_rotated"] * 2
    assert peer(two[FEATURE], LABEL)["fingerprint"] == key(two[LABEL])["fingerprint"]
    trained(two, job_spec(epochs="1"))


def test_a_peer_that_was_away_for_longer_than_a_day_takes_the_new_key_and_the_old_one_no_more(
    two: Two, job_spec: Callable[..., str]
) -> None:
    two[FEATURE].stop()
    rotate(two[LABEL])
    two[LABEL].stop()
    move_clocks(two, 24 * 30)
    two[LABEL].start()
    two[FEATURE].start()
    told(two[LABEL])
    assert peer(two[FEATURE], LABEL)["former_key_until"] == ""
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{two[FEATURE].peer}/peer/v1/hello", verify=tls_of(LABEL, FEATURE), trust_env=False)
    trained(two, job_spec(epochs="1"))


def test_how_a_job_ended_reaches_a_peer_that_missed_the_rotation_too(two: Two, job_spec: Callable[..., str]) -> None:
    job = two[LABEL].submit(job_spec(epochs="3000"))["id"]
    two[FEATURE].wait(job, lambda found: bool(found["step"]))
    two[FEATURE].stop(9)
    two[LABEL].call("POST", f"/v1/jobs/{job}/cancel")
    assert two[LABEL].over(job)["state"] == "cancelled"
    rotate(two[LABEL])
    two[LABEL].stop()
    move_clocks(two, A_DAY_AND_MORE)
    two[LABEL].start()
    two[FEATURE].start()
    told(two[LABEL])
    ended = two[FEATURE].wait(job, lambda found: found["state"] == "cancelled")
    assert "Abort" in [line["kind"] for line in ended["traffic"] if line["direction"] == "received"]


# Statements that are forged


def say(two: Two, *signed: SignedRotation) -> tuple[int, str]:
    """To the feature party, with a certificate of the label party's old key."""
    body = msgspec.msgpack.encode(Statements(list(signed)))
    url = two[FEATURE].peer + ROTATION_ROUTE
    answer = httpx.post(url, content=body, verify=tls_of(LABEL, FEATURE), trust_env=False)
    return answer.status_code, answer.json()["code"] if answer.content else ""


def test_a_replayed_older_a_forked_and_a_foreign_statement_are_refused_and_audited(two: Two) -> None:
    old, thief = identity_of(LABEL), Identity.generate(LABEL)
    rotate(two[LABEL])
    first = present(two[LABEL])
    rotate(two[LABEL])
    pinned = peer(two[FEATURE], LABEL)["fingerprint"]
    as_feature = Identity(FEATURE, old.private)
    told = [
        SignedRotation.of(old, thief, 1),
        SignedRotation.of(thief, old, 1),
        SignedRotation.of(as_feature, Identity.generate(FEATURE), 1),
        msgspec.structs.replace(SignedRotation.of(first, thief, 1), by_old=bytes(64)),
    ]
    for signed in told:
        assert say(two, signed) == (409, "rotation_refused")
    older = stored_rotations(two[LABEL])[0]
    assert say(two, older) == (409, "rotation_refused")
    refused = [entry["detail"] for entry in entries(two[FEATURE]) if entry["event"] == "refused"]
    assert [detail["rule"] for detail in refused] == ["forked", "foreign", "foreign", "unsigned", "older"]
    assert {detail["code"] for detail in refused} == {"rotation_refused"}
    assert peer(two[FEATURE], LABEL)["fingerprint"] == pinned
    assert say(two, *stored_rotations(two[LABEL])) == (200, "")  # what was heard before may be said again


def stored_rotations(party: Any) -> list[SignedRotation]:
    """As the party says them, the oldest first."""
    found = []
    for entry in entries(party):
        if entry["event"] == "key_rotated" and not entry["peer"]:
            detail = entry["detail"]
            old, new, cosigning, by_old, by_new = (
                base64.b64decode(detail[name]) for name in ("old", "key", "cosigning", "by_old", "by_key")
            )
            encoded = msgspec.msgpack.encode([party.name, old, new, cosigning, detail["made_at"]])
            found.append(SignedRotation(encoded, by_old, by_new))
    return found


def test_nothing_but_a_statement_about_a_key_is_heard_there(two: Two) -> None:
    url = two[FEATURE].peer + ROTATION_ROUTE
    with httpx.Client(verify=tls_of(LABEL, FEATURE), trust_env=False) as client:
        for body in (b"", b"\xc1", msgspec.msgpack.encode({"rotations": [1]}), bytes(1000)):
            assert client.post(url, content=body).json()["code"] == "unreadable_body"
        assert client.post(url, content=bytes(100_000)).status_code == 413


@pytest.mark.parametrize(
    ("back_dated_seconds", "problem"), [(0, "does not take the new key"), (10**6, "does not trust")]
)
def test_a_thief_who_was_faster_is_seen_by_the_party_whose_key_was_stolen(
    two: Two, back_dated_seconds: int, problem: str
) -> None:
    """What rotation does not protect: the thief's key is pinned. Removing the peer and enrolling anew helps."""
    two[FEATURE].stop()
    rotate(two[LABEL])
    two[LABEL].stop()
    two[FEATURE].start()
    made_at = int(time.time()) - back_dated_seconds
    assert say(two, SignedRotation.of(identity_of(LABEL), Identity.generate(LABEL), made_at)) == (200, "")
    two[LABEL].start()
    deadline = time.monotonic() + TOLD_SECONDS
    while problem not in key(two[LABEL])["peers"][0]["problem"]:
        assert time.monotonic() < deadline, key(two[LABEL])
        time.sleep(0.2)
    assert not answers(two[FEATURE], LABEL)  # it takes the thief for the label party
    assert two[FEATURE].call("DELETE", f"/v1/peers/{LABEL}").json()["state"] == "removed"
    assert two[LABEL].call("DELETE", f"/v1/peers/{FEATURE}").json()["state"] == "removed"
    line = two[LABEL].call("POST", "/v1/invitations", json={"peer": FEATURE}).json()["line"]
    words = two[FEATURE].call("POST", "/v1/invitations/accept", json={"line": line}).json()["words"]
    for name, other in ((LABEL, FEATURE), (FEATURE, LABEL)):
        assert two[name].call("POST", f"/v1/peers/{other}/confirm", json={"words": words}).status_code == 200
    assert answers(two[LABEL], FEATURE)
    assert answers(two[FEATURE], LABEL)


def test_a_key_that_cannot_be_written_is_the_same_as_before_and_the_answer_says_what_to_do(two: Two) -> None:
    before = key(two[LABEL])["key"]
    two[LABEL].folder.chmod(0o500)
    try:
        answer = two[LABEL].call("POST", "/v1/key/rotate")
    finally:
        two[LABEL].folder.chmod(0o700)
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["safe"]) == (
        507,
        "storage_failed",
        "The key is the same as before.",
    )
    assert "Free space" in problem["hint"]
    assert key(two[LABEL])["key"] == before


# At the command line


def test_the_command_shows_the_key_replaces_it_and_withdraws_what_names_the_old_one(two: Two) -> None:
    folder = two[LABEL].folder
    before = run(folder, "key", "show", "--party", str(folder))
    assert before["peers"] == [{"name": FEATURE, "knows": True, "problem": ""}]
    run(folder, "peer", "invite", "shop", "--party", str(folder))
    after = run(folder, "key", "rotate", "--yes", "--party", str(folder))
    assert after["withdrawn"] == ["shop"]
    assert two[LABEL].call("GET", "/v1/invitations").json() == {"invitations": []}
    assert run(folder, "key", "show", "--party", str(folder)) == {
        name: value for name, value in after.items() if name != "withdrawn"
    }
    assert after["key"] != before["key"]


def test_an_operator_at_a_terminal_is_told_what_happens_and_asked(two: Two) -> None:
    before = key(two[LABEL])["key"]
    code, shown = at_terminal(two[LABEL].folder, "no", "key", "rotate")
    assert (code, key(two[LABEL])["key"]) == (4, before), shown
    assert "Nobody has to enrol again" in shown
    code, shown = at_terminal(two[LABEL].folder, "yes", "key", "rotate")
    assert (code, key(two[LABEL])["key"] != before) == (0, True), shown
    assert f"{FEATURE} knows it." in shown
