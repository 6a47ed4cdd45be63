"""docs/two_machines.md, done as it says, by two parties that share no address.

Each machine is a network namespace of its own where this user may make one; in any case the same is done on two
addresses of the loopback range.
"""

import contextlib
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import ROOT, SECONDS, VFL, free_ports, run, serving
from namespaces import two_namespaces

PAGE = (ROOT / "docs" / "two_machines.md").read_text("utf-8")
PARTIES = ("bank", "telco")
ROWS = 1200
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5).close()"


@dataclass
class Machine:
    """One organisation's: a folder, an address, and how a program is run there."""

    party: str
    folder: Path
    address: str
    prefix: tuple[str, ...]
    ports: tuple[int, int]

    def vfl(self, command: str, **filled: str) -> Any:
        """A command as the page quotes it, its words in capitals filled in; its data."""
        assert f"$ {command}\n" in PAGE
        return self.run(*(filled.get(word, word).replace(*self.address_on_page) for word in command.split()[1:]))

    def run(self, *arguments: str) -> Any:
        return run(self.folder, *arguments, vfl=(*self.prefix, VFL))

    @property
    def address_on_page(self) -> tuple[str, str]:
        return f"{self.party}.example.org:7102", f"{self.address}:{self.ports[1]}"

    def can_connect(self, address: str, port: int) -> bool:
        command = [*self.prefix, sys.executable, "-c", CONNECT, address, str(port)]
        return subprocess.run(command, capture_output=True, timeout=SECONDS, check=False).returncode == 0


@contextlib.contextmanager
def two_separate_machines(folder: Path) -> Iterator[list[Machine]]:
    with two_namespaces(PARTIES) as namespaces:
        yield [
            Machine(party, folder / party, namespace.address, namespace.prefix, (7101, 7102))
            for party, namespace in zip(PARTIES, namespaces, strict=True)
        ]


@contextlib.contextmanager
def two_loopback_addresses(folder: Path) -> Iterator[list[Machine]]:
    """On one machine the two need different operator ports, and each peer port an address of its own."""
    try:
        with socket.socket() as listener:
            listener.bind(("127.0.0.3", 0))
    except OSError:
        pytest.skip("this system has one loopback address")
    ports = free_ports(3)
    yield [
        Machine(party, folder / party, f"127.0.0.{at}", (), (ports[at - 2], ports[2]))
        for at, party in enumerate(PARTIES, start=2)
    ]


WAYS = {"two network namespaces": two_separate_machines, "two loopback addresses": two_loopback_addresses}


@pytest.fixture(params=WAYS)
def machines(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Machine]]:
    with WAYS[request.param](tmp_path) as found:
        yield found


def block(language: str, containing: str) -> str:
    """The fenced block of the page in this language that contains this text."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (found,) = (text for text in blocks if containing in text)
    return str(found)


def set_up(machine: Machine, peer: str) -> None:
    """Sections 2 and 3 of the page."""
    machine.folder.mkdir()
    party = machine.party
    made = machine.vfl(f"vfl party init {party} --name {party} --address {party}.example.org:7102")
    assert made["address"] == f"{machine.address}:{machine.ports[1]}"
    settings = machine.folder / party / "party.toml"
    text = settings.read_text("utf-8")
    for name, port in zip(("operator_port", "peer_port"), machine.ports, strict=True):
        text = text.replace(f"{name} = {made[name]}", f"{name} = {port}")
    if not machine.prefix:
        text = text.replace('peer_host = "0.0.0.0"', f'peer_host = "{machine.address}"')
    settings.write_text(text + "\n" + block("toml", f'peers = ["{peer}"]'), "utf-8")
    draws = np.random.default_rng(0).normal(size=(ROWS, 4))
    columns = draws[:, :2] if party == "bank" else draws[:, 2:]
    lines = [f"c-{row:04}," + ",".join(f"{cell:.6f}" for cell in columns[row]) for row in range(ROWS)]
    if party == "bank":
        lines = [f"{line},{int(draws[row, 0] - draws[row, 2] > 0)}" for row, line in enumerate(lines)]
    header = block("csv", "income" if party == "bank" else "calls").splitlines()[0]
    (machine.folder / party / f"{party}.csv").write_text("\n".join([header, *lines]) + "\n", "utf-8")


def until_it_waits(machine: Machine, job: str) -> dict[str, Any]:
    """The job at a machine whose operator has to approve it: its server looks at the table first."""
    for _ in range(100):
        listed = machine.vfl(f"vfl job list --party {machine.party}")["jobs"]
        if job in {each["id"] for each in listed}:
            found: dict[str, Any] = machine.vfl(f"vfl job show JOB --party {machine.party}", JOB=job)
            if found["waits_for"] or found["state"] != "proposed":
                return found
        time.sleep(0.1)
    raise AssertionError(f"{machine.party} does not know job {job}")


def test_two_organisations_who_follow_the_page_train_on_ciphertexts(machines: list[Machine]) -> None:
    bank, telco = machines
    for machine, peer in ((bank, "telco"), (telco, "bank")):
        set_up(machine, peer)
        assert f"$ vfl party serve {machine.party}\n" in PAGE
    (bank.folder / "job.toml").write_text(block("toml", "[roster]"), "utf-8")
    with contextlib.ExitStack() as servers:
        for machine in machines:
            servers.enter_context(serving(machine.folder, machine.party, (*machine.prefix, VFL)))
            machine.vfl(f"vfl doctor --party {machine.party}")  # exits with 1 where a check has failed
        bank.vfl("vfl data add customers bank/bank.csv --id customer --label default --party bank")
        telco.vfl("vfl data add usage telco/telco.csv --id customer --party telco")
        line = bank.vfl("vfl peer invite telco --party bank")["line"]
        words = telco.vfl("vfl peer accept LINE --party telco", LINE=line)["words"]
        for machine, peer in ((bank, "telco"), (telco, "bank")):
            assert f"vfl peer confirm {peer} --words" in PAGE
            machine.run("peer", "confirm", peer, "--words", words, "--party", machine.party)
        bank.vfl("vfl peer check telco --party bank")
        telco.vfl("vfl peer check bank --party telco")
        bank.vfl("vfl doctor telco --party bank")
        bank.vfl("vfl job check job.toml --rows 1200")
        job = bank.vfl("vfl job submit job.toml --party bank")["id"]
        waiting = until_it_waits(telco, job)
        assert (waiting["state"], waiting["waits_for"]) == ("proposed", "approval")
        assert "bank proposes the job" in telco.vfl("vfl job diff JOB --party telco", JOB=job)["text"]
        approved = telco.vfl("vfl job approve JOB --yes --party telco", JOB=job)["approval"]
        assert (approved["decision"], approved["by"]) == ("approved", "operator")
        done = bank.vfl("vfl job watch JOB --party bank", JOB=job)
        other = telco.vfl("vfl job watch JOB --party telco", JOB=job)
        assert [each["id"] for each in telco.vfl("vfl job list --party telco")["jobs"]] == [job]
        for machine in machines:
            shown = machine.vfl(f"vfl job show JOB --party {machine.party}", JOB=job)
            assert bool(shown["metrics"]) == (machine is bank)
        assert telco.can_connect(bank.address, bank.ports[1])
        assert bank.can_connect(telco.address, telco.ports[1])
        if bank.prefix:  # the page has one port opened: the other one is not even there for the other machine
            assert not telco.can_connect(bank.address, bank.ports[0])
            assert not bank.can_connect(telco.address, telco.ports[0])
    assert done["state"] == other["state"] == "done"
    assert done["metrics"]["auc"] > 0.8
    assert done["spec_digest"] == other["spec_digest"]
    for machine in machines:
        kept = machine.folder / machine.party / "models" / job
        assert {"model.safetensors", "manifest.json"} <= {path.name for path in kept.iterdir()}
