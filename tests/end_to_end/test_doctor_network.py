"""What `vfl doctor` says of a network that drops packets or leads nowhere: real calls between two machines."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import SECONDS, VFL, run, serving
from identities import acquaint, give_identity
from namespaces import Namespace, two_namespaces

BANK, TELCO = "bank", "telco"
ELSEWHERE, SECOND_ADDRESS = "203.0.113.9", "198.51.100.3"
PORTS = (7101, 7102)

Machines = dict[str, Namespace]
Findings = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("network")


@pytest.fixture(scope="module")
def machines(folder: Path) -> Iterator[Machines]:
    """Two servers that trust each other, each on a machine of its own."""
    with two_namespaces([BANK, TELCO]) as (bank, telco), contextlib.ExitStack() as servers:
        found = {BANK: bank, TELCO: telco}
        for (party, own), peer in zip(found.items(), (TELCO, BANK), strict=True):
            options = ["--operator-port", str(PORTS[0]), "--peer-port", str(PORTS[1])]
            run(folder, "party", "init", party, "--name", party, *options, "--address", f"{own.address}:{PORTS[1]}")
            give_identity(folder / party, party)
            acquaint(folder / party, {peer: f"{found[peer].address}:{PORTS[1]}"})
            servers.enter_context(serving(folder, party, (*own.prefix, VFL)))
        yield found


def look(folder: Path, machines: Machines) -> Findings:
    """At telco, from the machine of bank."""
    command = [*machines[BANK].prefix, VFL, "doctor", TELCO, "--party", BANK, "--format", "json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
    findings: Findings = {each["check"]: each for each in json.loads(done.stdout)["data"]["findings"]}
    assert done.returncode == (1 if failing(findings) else 0)
    return findings


def failing(findings: Findings) -> dict[str, str]:
    return {check: each["side"] for check, each in findings.items() if each["result"] == "failed"}


@contextlib.contextmanager
def changed(machine: Namespace, noun: str, *what: str) -> Iterator[None]:
    """`ip NOUN add ...` there, as long as this lasts."""
    machine.ip(noun, "add", *what)
    try:
        yield
    finally:
        machine.ip(noun, "del", *what)


@contextlib.contextmanager
def called_at(folder: Path, machines: Machines, caller: str, address: str) -> Iterator[None]:
    """As long as this lasts, that party has another address of its peer."""
    peer = TELCO if caller == BANK else BANK
    vfl = (*machines[caller].prefix, VFL)
    run(folder, "peer", "address", peer, f"{address}:{PORTS[1]}", "--party", caller, vfl=vfl)
    try:
        yield
    finally:
        run(folder, "peer", "address", peer, f"{machines[peer].address}:{PORTS[1]}", "--party", caller, vfl=vfl)


def test_where_nothing_is_in_the_way_both_directions_are_open(folder: Path, machines: Machines) -> None:
    findings = look(folder, machines)
    assert failing(findings) == {}
    assert findings["the way back"]["result"] == "ok"


def test_packets_that_are_dropped_are_told_from_a_port_where_nothing_listens(folder: Path, machines: Machines) -> None:
    with changed(machines[TELCO], "route", "blackhole", machines[BANK].address):  # no answer finds its way
        findings = look(folder, machines)
    assert failing(findings) == {"connection": "between"}
    assert "No answer at all" in findings["connection"]["text"]
    assert "firewall" in findings["connection"]["text"]
    assert f"Let {BANK} reach that port" in findings["connection"]["fix"]
    assert findings["TLS 1.3"]["result"] == findings["the way back"]["result"] == "not checked"


def test_an_address_to_which_no_way_leads_is_this_sides_to_put_right(folder: Path, machines: Machines) -> None:
    with changed(machines[BANK], "route", "unreachable", machines[TELCO].address):
        refused = look(folder, machines)
    with called_at(folder, machines, BANK, ELSEWHERE):  # this machine has no route at all to that network
        unknown = look(folder, machines)
    for findings in (refused, unknown):
        assert failing(findings) == {"connection": "here"}
        assert "No way through the network" in findings["connection"]["text"]
        assert "VPN" in findings["connection"]["fix"]


def test_a_peer_that_has_no_way_back_says_so(folder: Path, machines: Machines) -> None:
    with called_at(folder, machines, TELCO, ELSEWHERE):
        findings = look(folder, machines)
    assert failing(findings) == {"the way back": TELCO}
    assert "No way through the network" in findings["the way back"]["text"]
    assert f"{machines[BANK].address}:{PORTS[1]}" in findings["the way back"]["fix"]


def test_a_peer_whose_calls_are_dropped_says_so(folder: Path, machines: Machines) -> None:
    bank = machines[BANK]
    with contextlib.ExitStack() as stack:
        stack.enter_context(changed(bank, "address", f"{SECOND_ADDRESS}/24", "dev", "vfl0"))
        stack.enter_context(changed(bank, "route", "blackhole", "default", "table", "100"))
        stack.enter_context(changed(bank, "rule", "from", SECOND_ADDRESS, "lookup", "100"))  # its answers get nowhere
        stack.enter_context(called_at(folder, machines, TELCO, SECOND_ADDRESS))
        findings = look(folder, machines)
    assert failing(findings) == {"the way back": TELCO}  # which has another address of bank than bank itself
    assert "No answer at all" in findings["the way back"]["text"]
