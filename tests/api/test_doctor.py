"""`vfl doctor` between two servers: which of name, port, TLS, key, trust, clock or version is wrong, and at whom."""

import contextlib
import json
import os
import re
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from command_line import ROOT, VFL, free_ports
from identities import identity_of, tls_at, tls_of
from played_servers import BANK, TELCO, PlayedTelco, listening, proxy_context, shaking

from parties.doctor.half import CHECKS, Question
from parties.trust.certificates import client_context, issue_leaf
from parties.trust.identity import IdentityKey
from parties.trust.invitation import entry_key, read_line
from parties.wire.envelopes import WIRE_VERSION

BOUND_SECONDS = 60
WITHOUT = "not checked"

Findings = dict[str, dict[str, str]]
Pair = tuple[Any, Any]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, new_party: Callable[..., Any]) -> Iterator[Pair]:
    """(bank, telco), running, trusted peers of each other."""
    folder, ports = tmp_path_factory.mktemp("doctor"), free_ports(4)
    servers = [
        new_party(folder / BANK, BANK, {TELCO: f"https://127.0.0.1:{ports[3]}"}, {}, ports[:2]),
        new_party(folder / TELCO, TELCO, {BANK: f"https://127.0.0.1:{ports[1]}"}, {}, ports[2:]),
    ]
    try:
        yield servers[0].start(), servers[1].start()
    finally:
        for server in servers:
            server.close()


def look(server: Any, peer: str = TELCO) -> Findings:
    answer = server.call("POST", f"/v1/doctor/{peer}")
    assert answer.status_code == 200, answer.text
    return {each["check"]: each for each in answer.json()["findings"]}


def failing(findings: Findings) -> dict[str, str]:
    """The side of each check that failed."""
    return {check: each["side"] for check, each in findings.items() if each["result"] == "failed"}


def move(server: Any, peer: str, address: str) -> None:
    assert server.call("POST", f"/v1/peers/{peer}/address", json={"address": address}).status_code == 200


@contextlib.contextmanager
def called_at(server: Any, peer: Any, address: str) -> Iterator[None]:
    """As long as this lasts the server has another address of its peer."""
    move(server, peer.name, address)
    try:
        yield
    finally:
        move(server, peer.name, f"127.0.0.1:{peer.peer_port}")


def look_at(bank: Any, telco: Any, played: PlayedTelco) -> Findings:
    with played.serving() as address, called_at(bank, telco, address):
        return look(bank)


# Between two real servers


def test_where_everything_is_well_every_line_is_ok_in_both_directions(pair: Pair) -> None:
    for server, peer in (pair, pair[::-1]):
        findings = look(server, peer.name)
        assert {each["result"] for each in findings.values()} == {"ok"}
        assert list(findings)[:4] == ["name", "connection", "TLS 1.3", "identity key"]
        assert str(server.peer_port) in findings["the way back"]["text"]
        assert "MiB/s" in findings["8 MiB at once"]["text"]


def test_a_wrong_port_is_named_with_what_to_compare(pair: Pair) -> None:
    with called_at(*pair, f"127.0.0.1:{free_ports(1)[0]}"):
        findings = look(pair[0])
    assert failing(findings) == {"connection": TELCO}
    assert "nothing listens" in findings["connection"]["text"]
    assert "server.peer_port" in findings["connection"]["fix"]
    assert findings["name"]["result"] == "ok"
    assert findings["TLS 1.3"]["result"] == findings["clock"]["result"] == WITHOUT


def test_a_name_that_no_one_knows_is_this_sides_to_correct(pair: Pair) -> None:
    with called_at(*pair, "vfl.nowhere.invalid:7102"):
        findings = look(pair[0])
    assert failing(findings) == {"name": "here"}
    assert "vfl.nowhere.invalid" in findings["name"]["text"]
    assert f"vfl peer address {TELCO}" in findings["name"]["fix"]


def test_a_port_that_speaks_no_tls_is_told_from_one_that_says_nothing(pair: Pair) -> None:
    with called_at(*pair, f"127.0.0.1:{pair[1].operator_port}"):
        findings = look(pair[0])
    assert failing(findings) == {"TLS 1.3": TELCO}
    assert "operator port" in findings["TLS 1.3"]["fix"]
    with listening(lambda connection: connection.close()) as address, called_at(*pair, address):
        findings = look(pair[0])
    assert failing(findings) == {"TLS 1.3": "between"}


def test_a_server_of_older_tls_is_named(pair: Pair) -> None:
    context = tls_at(TELCO, BANK)
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2

    with listening(shaking(context)) as address, called_at(*pair, address):
        findings = look(pair[0])
    assert failing(findings) == {"TLS 1.3": TELCO}
    assert "TLS 1.3" in findings["TLS 1.3"]["text"]


def test_another_partys_key_at_the_address_is_told_from_a_proxy(pair: Pair, tmp_path: Path) -> None:
    with called_at(*pair, f"127.0.0.1:{pair[0].peer_port}"):  # bank answers where telco should
        findings = look(pair[0])
    assert failing(findings) == {"identity key": TELCO}
    assert "Another party answers" in findings["identity key"]["text"]
    context = proxy_context(tmp_path)

    with listening(shaking(context)) as address, called_at(*pair, address):
        findings = look(pair[0])
    assert failing(findings) == {"identity key": "between"}
    assert "A proxy ends TLS" in findings["identity key"]["text"]


def test_a_certificate_that_is_over_points_to_the_clocks(pair: Pair) -> None:
    from parties.trust.certificates import server_context

    expired = issue_leaf(identity_of(TELCO).private, TELCO, days=-1)
    context = server_context(expired, [identity_of(BANK).key])

    with listening(shaking(context)) as address, called_at(*pair, address):
        findings = look(pair[0])
    assert failing(findings) == {"identity key": "between"}
    assert "clocks" in findings["identity key"]["fix"]


def test_a_peer_that_cannot_reach_us_says_so_and_where_it_tries(pair: Pair) -> None:
    bank, telco = pair
    (port,) = free_ports(1)
    with called_at(telco, bank, f"127.0.0.1:{port}"):
        findings = look(bank)
    assert failing(findings) == {"the way back": TELCO}
    assert f"nothing listens at 127.0.0.1:{port}" in findings["the way back"]["text"]
    assert str(bank.peer_port) in findings["the way back"]["text"]
    assert f"At {TELCO}: `vfl peer address {BANK} 127.0.0.1:{bank.peer_port}`" in findings["the way back"]["fix"]
    assert findings["8 MiB at once"]["result"] == "ok"


def test_a_party_that_is_not_known_is_a_line_and_no_error(pair: Pair) -> None:
    findings = look(pair[0], "shop")
    assert failing(findings) == {"known here": "here"}
    assert {each["result"] for check, each in findings.items() if check != "known here"} == {WITHOUT}


# A peer that a test plays


@pytest.mark.parametrize(
    ("skew", "result"), [(5.0, "ok"), (100.0, "warning"), (-100.0, "warning"), (1000.0, "failed"), (-1000.0, "failed")]
)
def test_clocks_that_differ_are_told_in_seconds(pair: Pair, skew: float, result: str) -> None:
    clock = look_at(*pair, PlayedTelco(skew_seconds=skew))["clock"]
    assert (clock["result"], clock["side"]) == (result, "between")
    told = re.search(r"is (\d+) s (ahead of|behind) this one", clock["text"])
    assert told is not None
    assert abs(int(told[1]) - abs(skew)) <= 2
    assert (told[2] == "ahead of") == (skew > 0)


@pytest.mark.parametrize(
    ("largest", "checks"), [(4 << 20, ["8 MiB at once"]), (1 << 16, ["1 MiB at once"]), (1 << 30, [])]
)
def test_a_limit_for_bodies_on_the_way_is_found(pair: Pair, largest: int, checks: list[str]) -> None:
    findings = look_at(*pair, PlayedTelco(largest_body=largest))
    assert failing(findings) == dict.fromkeys(checks, "between")
    assert all("proxy" in findings[check]["fix"] for check in checks)


def test_another_wire_version_name_or_release_is_named(pair: Pair) -> None:
    assert failing(look_at(*pair, PlayedTelco(wire_version=WIRE_VERSION + 1))) == {"wire version": "between"}
    assert failing(look_at(*pair, PlayedTelco(name="shop"))) == {"a party answers": TELCO}
    findings = look_at(*pair, PlayedTelco(release="9.0"))
    assert (failing(findings), findings["release"]["result"]) == ({}, "warning")


def test_a_peer_that_was_asked_too_often_says_nothing_about_the_way_to_it(pair: Pair) -> None:
    findings = look_at(*pair, PlayedTelco(largest_body=1 << 19, refuses_larger_with=429))
    assert failing(findings) == {}
    assert findings["1 MiB at once"]["result"] == "warning"
    assert "asked for checks too often" in findings["1 MiB at once"]["text"]
    assert failing(look_at(*pair, PlayedTelco(largest_body=1 << 19)))["1 MiB at once"] == "between"


def test_a_peer_of_an_older_release_that_knows_no_checks_is_no_failure(pair: Pair) -> None:
    findings = look_at(*pair, PlayedTelco(knows_checks=False))
    assert (failing(findings), findings["signature"]["result"]) == ({}, "warning")
    assert findings["the way back"]["result"] == WITHOUT


def test_an_answer_that_another_key_has_signed_counts_for_nothing(pair: Pair) -> None:
    findings = look_at(*pair, PlayedTelco(signer=BANK))
    assert failing(findings) == {"signature": "between"}
    assert findings["clock"]["result"] == WITHOUT


@pytest.mark.parametrize(
    ("obstacle", "side"),
    [("nothing_listens", "here"), ("silent_port", "between"), ("foreign_certificate", "between"), ("no_route", TELCO)],
)
def test_what_a_peer_meets_at_the_right_address_is_put_right_where_it_stands(
    pair: Pair, obstacle: str, side: str
) -> None:
    findings = look_at(*pair, PlayedTelco(way_back=obstacle, address=f"127.0.0.1:{pair[0].peer_port}"))
    assert failing(findings) == {"the way back": side}


def test_of_a_peers_own_words_about_the_way_back_none_is_shown(pair: Pair) -> None:
    findings = look_at(*pair, PlayedTelco(way_back="\x1b[31m call this number"))
    assert failing(findings) == {"the way back": "between"}
    assert "number" not in json.dumps(findings)


# The command


def command(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [VFL, "doctor", *arguments],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=BOUND_SECONDS,
        check=False,
    )


def found(done: subprocess.CompletedProcess[str]) -> Findings:
    return {each["check"]: each for each in json.loads(done.stdout)["data"]["findings"]}


def test_the_command_ends_with_0_where_nothing_failed_and_its_table_fits_80_columns(pair: Pair) -> None:
    done = command(pair[0].folder, TELCO)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.strip() for line in lines if line and line[0] != " "][1:] == [
        "own machine",
        "own server",
        "network",
        "peer",
    ]
    assert not [line for line in lines if "failed" in line or WITHOUT in line]


def test_the_json_form_has_a_finding_for_every_line_and_the_page_lists_each(pair: Pair) -> None:
    done = command(pair[0].folder, TELCO, "--format", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    answer = json.loads(done.stdout)
    assert (answer["status"], answer["data"]["peer"], answer["data"]["failed"]) == ("ok", TELCO, 0)
    page = (ROOT / "docs" / "doctor.md").read_text("utf-8")
    listed = re.findall(r"^\| `([^`]+)` \|", page.partition("## Job")[0], re.MULTILINE)
    assert sorted(listed) == sorted(each["check"] for each in answer["data"]["findings"])
    for each in answer["data"]["findings"]:
        assert each.keys() == {"area", "check", "result", "side", "text", "fix"}
        assert bool(each["fix"]) == (each["result"] == "warning")


def test_a_server_is_named_by_its_url_and_token_too(pair: Pair) -> None:
    token = str(pair[0].folder / "operator.token")
    done = command(pair[1].folder.parent, "--server", pair[0].operator, "--token-file", token, "--format", "json")
    findings = found(done)
    assert (done.returncode, findings["runs"]["result"], findings["folder"]["result"]) == (0, "ok", WITHOUT)
    done = command(pair[1].folder.parent, "--format", "json")
    assert (done.returncode, json.loads(done.stdout)["error_code"]) == (4, "party_not_found")


def test_whoever_has_read_an_invitation_asks_no_checks(pair: Pair) -> None:
    line = pair[0].call("POST", "/v1/invitations", json={"peer": "shop"}).json()["line"]
    invitation = read_line(line)
    guest = client_context(issue_leaf(entry_key(invitation.secret), "shop"), (IdentityKey(invitation.key),))
    with httpx.Client(verify=guest, trust_env=False) as client:
        answer = client.post(f"{pair[0].peer}/peer/v1/check", content=msgspec.msgpack.encode(Question(bytes(16))))
    assert (answer.status_code, answer.json()["code"]) == (401, "unknown_sender")


# From here on each test leaves the pair in another state than it was


def test_checks_are_answered_so_often_and_not_more_and_the_rest_is_audited(pair: Pair) -> None:
    body = msgspec.msgpack.encode(Question(bytes(16)))
    with httpx.Client(verify=tls_of(BANK, TELCO), trust_env=False) as client:
        answers = [client.post(f"{pair[1].peer}/peer/v1/check", content=body) for _ in range(2 * CHECKS)]
        limited = [answer for answer in answers if answer.status_code == 429]
        assert limited
        assert limited[0].json()["code"] == "too_many_checks"
        assert {answer.status_code for answer in answers} <= {200, 429}
    entries = pair[1].call("GET", "/v1/audit/entries", params={"limit": 1000}).json()["entries"]
    told = [(entry["peer"], entry["detail"]["code"]) for entry in entries if entry["event"] == "refused"]
    assert told.count((BANK, "too_many_checks")) == min(len(limited), CHECKS)  # as many leaves as are written at once
    findings = look(pair[0])
    assert findings["signature"]["result"] in {"warning", "ok"}
    assert failing(findings) == {}


def test_the_own_servers_half_is_answered_without_a_peer(pair: Pair) -> None:
    findings = pair[0].call("GET", "/v1/doctor").json()["findings"]
    assert {each["area"] for each in findings} == {"own server"}
    by_check = {each["check"]: each for each in findings}
    assert "89 days" in by_check["certificate"]["text"]
    assert by_check["database"]["result"] == "ok"


def test_a_key_file_that_others_may_read_fails(pair: Pair) -> None:
    key = pair[0].folder / "identity.key"
    key.chmod(0o644)
    try:
        done = command(pair[0].folder, "--format", "json")
    finally:
        key.chmod(0o600)
    findings = found(done)
    assert (done.returncode, failing(findings)) == (1, {"identity.key": "here"})
    assert json.loads(done.stdout)["error_code"] == "checks_failed"
    assert findings["identity.key"]["fix"].startswith("chmod 600 ")
    assert findings["passphrase"]["result"] == "warning"  # beside the key, as `vfl party init` leaves it
    assert findings["SEAL"]["result"] == "warning"


def test_a_peer_whose_operator_has_not_said_yes_is_named(pair: Pair) -> None:
    bank, telco = pair
    assert telco.call("DELETE", f"/v1/peers/{BANK}").status_code == 200
    findings = look(bank)
    assert failing(findings) == {"trust": TELCO}
    assert f"`vfl peer confirm {BANK}`" in findings["trust"]["fix"]
    assert findings["identity key"]["result"] == "ok"


def test_a_server_that_is_down_is_named_and_an_own_one_leaves_the_machine_to_check(pair: Pair) -> None:
    bank, telco = pair
    telco.stop()
    assert failing(look(bank)) == {"connection": TELCO}
    bank.stop()
    done = command(bank.folder, TELCO, "--format", "json")
    findings = found(done)
    assert (done.returncode, failing(findings)) == (1, {"runs": "here"})
    assert findings["fsync"]["result"] == findings["key opens"]["result"] == "ok"
    assert findings[f"all of {TELCO}"]["result"] == WITHOUT
    assert "vfl party serve" in findings["runs"]["fix"]
