"""Two servers that never met: one line, six words, and who is let in before and after."""

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from command_line import at_terminal
from identities import identity_of, tls_of

from parties.trust.certificates import client_context, issue_leaf
from parties.trust.identity import Identity, IdentityKey
from parties.trust.invitation import Invitation, entry_key, read_line

BANK, TELCO = "bank", "telco"
BOUND_SECONDS = 20.0

Pair = tuple[Any, Any]


@pytest.fixture
def pair(tmp_path: Path, new_party: Callable[..., Any]) -> Iterator[Pair]:
    """(bank, telco), running, strangers to each other."""
    servers = [new_party(tmp_path / name, name, {}, {}) for name in (BANK, TELCO)]
    try:
        yield servers[0].start(), servers[1].start()
    finally:
        for server in servers:
            server.close()


def invite(server: Any, peer: str, **options: Any) -> str:
    answer = server.call("POST", "/v1/invitations", json={"peer": peer} | options)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["line"])


def accept(server: Any, line: str) -> httpx.Response:
    answer: httpx.Response = server.call("POST", "/v1/invitations/accept", json={"line": line})
    return answer


def confirm(server: Any, peer: str, words: str) -> httpx.Response:
    answer: httpx.Response = server.call("POST", f"/v1/peers/{peer}/confirm", json={"words": words})
    return answer


def check(server: Any, peer: str) -> httpx.Response:
    answer: httpx.Response = server.call("POST", f"/v1/peers/{peer}/check")
    return answer


def known(server: Any, peer: str) -> dict[str, Any]:
    (found,) = [each for each in server.call("GET", "/v1/peers").json()["peers"] if each["name"] == peer]
    return dict(found)


def enrol(bank: Any, telco: Any) -> str:
    words = str(accept(telco, invite(bank, TELCO)).json()["words"])
    assert confirm(bank, TELCO, words).json()["state"] == confirm(telco, BANK, words).json()["state"] == "trusted"
    return words


def test_both_operators_see_the_same_six_words_and_nothing_is_trusted_before_both_say_yes(pair: Pair) -> None:
    bank, telco = pair
    words = accept(telco, invite(bank, TELCO)).json()["words"]
    assert len(words.split()) == 6
    assert known(bank, TELCO)["words"] == words
    assert check(bank, TELCO).json()["code"] == "unknown_peer"
    assert confirm(bank, TELCO, words.upper().replace(" ", "-")).json()["state"] == "trusted"
    assert check(bank, TELCO).json()["code"] == "peer_unreachable"  # telco's operator has not said yes
    assert confirm(telco, BANK, words).json()["state"] == "trusted"
    assert check(bank, TELCO).json() == {"peer": TELCO, "answered": True}
    assert check(telco, BANK).json() == {"peer": BANK, "answered": True}


def test_who_is_trusted_is_known_after_a_restart(pair: Pair) -> None:
    enrol(*pair)
    for server in pair:
        server.stop()
        server.start()
    assert check(pair[0], TELCO).status_code == check(pair[1], BANK).status_code == 200


def test_other_words_are_refused_and_change_nothing(pair: Pair) -> None:
    bank, telco = pair
    words = accept(telco, invite(bank, TELCO)).json()["words"].split()
    answer = confirm(bank, TELCO, " ".join([*words[1:], words[0]]))
    assert (answer.status_code, answer.json()["code"]) == (422, "words_differ")
    assert known(bank, TELCO)["state"] == "waiting"


def test_an_invitation_is_good_once(pair: Pair) -> None:
    bank, telco = pair
    line = invite(bank, TELCO)
    assert accept(telco, line).status_code == 200
    again = accept(telco, line).json()
    assert again["code"] == "enrolment_failed"
    assert "has met bank already" in again["detail"]
    assert "vfl peer confirm bank" in again["hint"]
    assert bank.call("GET", "/v1/invitations").json() == {"invitations": []}


def test_a_withdrawn_invitation_and_an_earlier_one_of_two_open_no_door(pair: Pair) -> None:
    bank, telco = pair
    first, second = invite(bank, TELCO), invite(bank, TELCO)
    assert accept(telco, first).json()["code"] == "enrolment_failed"
    assert bank.call("DELETE", f"/v1/invitations/{TELCO}").json() == {"withdrawn": True}
    assert accept(telco, second).json()["code"] == "enrolment_failed"


def test_an_invitation_ends_by_itself(pair: Pair) -> None:
    bank, telco = pair
    line = invite(bank, TELCO, hours=0.0001)
    bank.call("GET", "/v1/peers")
    while not read_line_expired(line):
        pass
    assert accept(telco, line).json()["code"] == "invitation_expired"


def read_line_expired(line: str) -> bool:
    from parties.trust.errors import InvitationExpired

    try:
        read_line(line)
    except InvitationExpired:
        return True
    return False


@pytest.mark.parametrize("hours", [0, -1, 73, 1e9])
def test_no_invitation_is_good_for_longer_than_three_days(pair: Pair, hours: float) -> None:
    answer = pair[0].call("POST", "/v1/invitations", json={"peer": TELCO, "hours": hours})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_a_line_broken_by_a_mail_program_is_read_and_a_changed_one_is_named(pair: Pair) -> None:
    bank, telco = pair
    line = invite(bank, TELCO)
    changed = line[:40] + ("A" if line[40] != "A" else "B") + line[41:]
    for damaged in (line[:-3], changed, line[10:], "", "vfl-invitation-1.", "http://bank.example"):
        assert accept(telco, damaged).json()["code"] == "invitation_unreadable", damaged
    broken = "\n  ".join([line[:50], line[50:100], line[100:]])
    assert accept(telco, broken).status_code == 200


def test_a_party_of_another_name_than_the_operator_expects_is_not_taken_in(pair: Pair) -> None:
    bank, telco = pair
    answer = accept(telco, invite(bank, "shop"))
    assert (answer.status_code, answer.json()["code"]) == (502, "enrolment_failed")
    assert "for a party named shop, and telco answers it" in answer.json()["detail"]


def test_a_trusted_peer_is_not_replaced_by_a_stranger_of_its_name(pair: Pair) -> None:
    bank, telco = pair
    enrol(bank, telco)
    answer = bank.call("POST", "/v1/invitations", json={"peer": TELCO})
    assert (answer.status_code, answer.json()["code"]) == (409, "peer_already_known")
    stranger = Identity.generate(BANK)
    line = Invitation(BANK, "127.0.0.1:9", stranger.key.raw, bytes(16), 1 << 40).line()
    answer = accept(telco, line)
    assert (answer.status_code, answer.json()["code"]) == (409, "peer_already_known")
    assert check(telco, BANK).status_code == 200


def test_an_own_invitation_is_refused(pair: Pair) -> None:
    assert accept(pair[0], invite(pair[0], TELCO)).json()["code"] == "invalid_settings"


def test_a_removed_peer_is_a_stranger_at_once(pair: Pair) -> None:
    bank, telco = pair
    enrol(bank, telco)
    assert check(telco, BANK).status_code == 200  # its connection stays open
    assert bank.call("DELETE", f"/v1/peers/{TELCO}").json()["state"] == "removed"
    assert check(telco, BANK).json()["code"] == "peer_unreachable"
    assert enrol(bank, telco)
    assert check(telco, BANK).status_code == 200


def test_a_peer_that_moves_is_called_at_its_new_address(pair: Pair) -> None:
    bank, telco = pair
    enrol(bank, telco)
    telco.call("POST", f"/v1/peers/{BANK}/address", json={"address": "127.0.0.1:9"})
    assert check(telco, BANK).json()["code"] == "peer_unreachable"
    telco.call("POST", f"/v1/peers/{BANK}/address", json={"address": f"127.0.0.1:{bank.peer_port}"})
    assert check(telco, BANK).status_code == 200
    wrong = telco.call("POST", f"/v1/peers/{BANK}/address", json={"address": "bank.example"})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_settings")


# At a terminal


def test_an_operator_at_a_terminal_is_shown_the_words_and_asked(pair: Pair) -> None:
    bank, telco = pair
    code, shown = at_terminal(telco.folder, "yes", "peer", "accept", invite(bank, TELCO))
    assert (code, known(telco, BANK)["state"]) == (0, "trusted"), shown
    words = known(bank, TELCO)["words"]
    assert words in shown
    assert "Does the other side see the same six words?" in shown
    code, shown = at_terminal(bank.folder, "YES", "peer", "confirm", TELCO)
    assert (code, known(bank, TELCO)["state"]) == (0, "trusted"), shown


@pytest.mark.parametrize("answer", ["no", "", "y", "yes please"])
def test_whoever_does_not_say_yes_to_the_words_trusts_nobody(pair: Pair, answer: str) -> None:
    bank, telco = pair
    code, shown = at_terminal(telco.folder, answer, "peer", "accept", invite(bank, TELCO))
    assert (code, known(telco, BANK)["state"]) == (1, "removed")
    assert "Somebody may stand between the two servers" in shown


# Who is let in


def logs(server: Any, text: str) -> bool:
    """Whether the server's log comes to hold this text; its line may be written after the other end was cut off."""
    deadline = time.monotonic() + BOUND_SECONDS
    while text not in (server.folder / "server.log").read_text():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_no_stranger_gets_past_the_handshake(pair: Pair) -> None:
    bank, _ = pair
    without = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    without.check_hostname, without.verify_mode = False, ssl.CERT_NONE
    for context in (without, tls_of(TELCO, BANK)):
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{bank.peer}/peer/v1/hello", verify=context, trust_env=False)
    assert logs(bank, "peer port, from 127.0.0.1: a TLS handshake failed: ")


def test_older_tls_is_refused(pair: Pair) -> None:
    enrol(*pair)
    context = tls_of(TELCO, BANK)
    context = client_context(issue_leaf(identity_of(TELCO).private, TELCO), (identity_of(BANK).key,))
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{pair[0].peer}/peer/v1/hello", verify=context, trust_env=False)


def test_an_expired_certificate_of_a_trusted_peer_is_refused(pair: Pair) -> None:
    enrol(*pair)
    expired = client_context(issue_leaf(identity_of(TELCO).private, TELCO, days=-1), (identity_of(BANK).key,))
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{pair[0].peer}/peer/v1/hello", verify=expired, trust_env=False)
    assert logs(pair[0], "certificate has expired")


def test_whoever_has_read_an_invitation_reaches_the_meeting_alone(pair: Pair) -> None:
    bank, _ = pair
    invitation = read_line(invite(bank, TELCO))
    leaf = issue_leaf(entry_key(invitation.secret), TELCO)
    guest = client_context(leaf, (IdentityKey(invitation.key),))
    with httpx.Client(verify=guest, trust_env=False) as client:
        for method, path in (("GET", "/peer/v1/hello"), ("POST", "/peer/v1/envelopes")):
            answer = client.request(method, bank.peer + path)
            assert (answer.status_code, answer.json()["code"]) == (401, "unknown_sender"), path
        noise = (b"\xc1", b"\xc1", b"\x81\xa3\xff\xfe\xfd\xc0")  # the last is a map with a key that is no text
        answers = [client.post(f"{bank.peer}/peer/v1/enrolment", content=each) for each in noise]
        assert {answer.json()["code"] for answer in answers} == {"enrolment_failed"}


def test_a_trusted_peer_does_not_reach_the_meeting(pair: Pair) -> None:
    enrol(*pair)
    tls = tls_of(TELCO, BANK)
    answer = httpx.post(f"{pair[0].peer}/peer/v1/enrolment", content=b"", verify=tls, trust_env=False)
    assert (answer.status_code, answer.json()["code"]) == (401, "unknown_sender")


def test_whoever_stands_in_the_middle_gives_the_two_operators_other_words(pair: Pair) -> None:
    """The attacker has read the line and sent a line of its own; it enrols with each side under the other's name."""
    bank, telco = pair
    line = read_line(invite(bank, TELCO))
    middle = Identity.generate(TELCO)
    at_bank = meet(line, middle)
    assert known(bank, TELCO)["words"] == at_bank
    # and towards telco it plays the bank with an invitation of its own, at a server of its own
    assert confirm(bank, TELCO, six_others(at_bank)).json()["code"] == "words_differ"
    assert telco.call("GET", "/v1/peers").json()["peers"] == []


def test_another_nonce_than_the_one_that_was_fixed_is_refused(pair: Pair) -> None:
    """Whoever could choose it after the answer could search for one that gives the words it wants."""
    bank, _ = pair
    with pytest.raises(httpx.HTTPStatusError, match="502"):
        meet(read_line(invite(bank, TELCO)), Identity.generate(TELCO), revealed=bytes([1] * 32))
    assert bank.call("GET", "/v1/peers").json()["peers"] == []


def meet(invitation: Invitation, me: Identity, revealed: bytes = bytes(32)) -> str:
    """As the invited party does; answers the words it sees. It says that its nonce is 32 bytes of zero."""
    import hashlib

    from parties.enrolment import Revealed, Signed
    from parties.trust.identity import Domain
    from parties.trust.invitation import Hello, six_words

    nonce = bytes(32)
    cosigning = me.cosigning.public_key().public_bytes_raw()
    own = Hello(invitation.id, me.name, "127.0.0.1:9", me.key.raw, cosigning, hashlib.sha256(nonce).digest())
    said = msgspec.msgpack.encode(own)
    tls = client_context(issue_leaf(entry_key(invitation.secret), me.name), (IdentityKey(invitation.key),))
    with httpx.Client(verify=tls, trust_env=False) as client:
        url = f"https://{invitation.address}/peer/v1/enrolment"
        signed = msgspec.msgpack.encode(Signed(said, me.sign(Domain.ENROLMENT, said)))
        answer = msgspec.msgpack.decode(client.post(url, content=signed).content, type=Signed)
        inviter = msgspec.msgpack.decode(answer.hello, type=Hello)
        client.post(url, content=msgspec.msgpack.encode(Revealed(invitation.id, revealed))).raise_for_status()
    return six_words(invitation, own, (inviter.nonce, nonce))


def six_others(words: str) -> str:
    return " ".join(reversed(words.split()))


def test_an_invitation_is_answered_five_times_at_most(pair: Pair) -> None:
    """Each try gives other words: nobody may draw them again and again."""
    import hashlib

    from parties.enrolment import TRIES, Signed
    from parties.trust.identity import Domain
    from parties.trust.invitation import Hello

    bank, telco = pair
    line = invite(bank, TELCO)
    invitation, me = read_line(line), Identity.generate(TELCO)
    tls = client_context(issue_leaf(entry_key(invitation.secret), TELCO), (IdentityKey(invitation.key),))
    cosigning = me.cosigning.public_key().public_bytes_raw()
    own = Hello(invitation.id, TELCO, "127.0.0.1:9", me.key.raw, cosigning, hashlib.sha256(b"").digest())
    said = msgspec.msgpack.encode(own)
    signed = msgspec.msgpack.encode(Signed(said, me.sign(Domain.ENROLMENT, said)))
    with httpx.Client(verify=tls, trust_env=False) as client:
        url = f"{bank.peer}/peer/v1/enrolment"
        statuses = [client.post(url, content=signed).status_code for _ in range(TRIES + 1)]
    assert statuses == [200] * TRIES + [422]
    assert accept(telco, line).json()["code"] == "enrolment_failed"


def test_connections_that_never_begin_tls_leave_the_port_to_others(pair: Pair) -> None:
    enrol(*pair)
    idle = [socket.create_connection(("127.0.0.1", pair[0].peer_port), BOUND_SECONDS) for _ in range(100)]
    try:
        assert check(pair[1], BANK).status_code == 200
    finally:
        for connection in idle:
            connection.close()
