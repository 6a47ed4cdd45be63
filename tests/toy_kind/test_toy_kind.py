"""A job kind of one file and one line runs between two real servers; nothing else of the program changes for it."""

import contextlib
import json
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from filecmp import dircmp
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import free_ports, serving
from identities import acquaint, give_identity
from registered_tables import register

ROOT = Path(__file__).parents[2]
PACKAGES = ("api", "parties", "vfl", "crypto")
TOY = Path(__file__).with_name("exchange.py")
SECONDS = 120
ROWS = 1200
AMOUNTS = {party: np.random.default_rng(seed).integers(0, 100, ROWS) for seed, party in enumerate(("north", "south"))}
JOB = """
[job]
name = "sums"
protocol = "exchange"
task = "regression"
[roster]
first = "north"
second = "south"
[data]
north = { dataset = "figures", column = "amount" }
south = { dataset = "figures", column = "amount" }
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program with the new kind: one file, and one line."""
    copy = tmp_path_factory.mktemp("source")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(TOY, copy / "vfl" / "kinds" / TOY.name)
    registry = copy / "vfl" / "kinds" / "__init__.py"
    text = registry.read_text("utf-8")
    registry.write_text(text.replace('    "rounds",\n', '    "rounds",\n    "exchange",\n'), "utf-8")
    return copy


@pytest.fixture(scope="module")
def python(source: Path) -> str:
    """An interpreter that has the changed program and the installed libraries, for servers and their workers alike."""
    environment = source / "environment"
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", "--symlinks", str(environment)], check=True, timeout=SECONDS
    )
    (packages,) = environment.glob("lib/python*/site-packages")
    libraries = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (packages / "changed.pth").write_text("\n".join([str(source), *libraries]) + "\n", "utf-8")
    return str(environment / "bin" / "python")


class Federation:
    """Two parties' folders, and `vfl` of the changed program as a person types it."""

    def __init__(self, folder: Path, python: str) -> None:
        self.folder, self._python = folder, python
        ports = free_ports(4)
        for party, peer, (own, other) in (
            ("north", "south", (ports[:2], ports[2:])),
            ("south", "north", (ports[2:], ports[:2])),
        ):
            self.run("party", "init", party, "--name", party, "--operator-port", own[0], "--peer-port", own[1])
            lines = [f"row-{row:04},{amount}" for row, amount in enumerate(AMOUNTS[party])]
            (folder / party / "figures.csv").write_text("\n".join(["id,amount", *lines]) + "\n", "utf-8")
            with (folder / party / "party.toml").open("a", encoding="utf-8") as settings:
                settings.write(
                    f'\n[acceptance]\npeers = ["{peer}"]\ndatasets = ["figures"]\nschemes = ["column_sums"]\n'
                )
            give_identity(folder / party, party)
            register(folder / party, {"figures": "figures.csv"})
            acquaint(folder / party, {peer: f"127.0.0.1:{other[1]}"})
        (folder / "job.toml").write_text(JOB, "utf-8")

    def command(self, *arguments: object) -> list[str]:
        script = "from api.cli.main import main; main()"
        return [self._python, "-P", "-c", script, *map(str, arguments)]

    def run(self, *arguments: object) -> Any:
        done = subprocess.run(
            self.command(*arguments, "--format", "json"),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)["data"]

    def over(self, job: str, party: str) -> Any:
        """The job as this party shows it once it has ended."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            shown = self.run("job", "show", job, "--party", party)
            if shown["state"] not in {"proposed", "running"}:
                return shown
        raise AssertionError(json.dumps(shown, indent=1))

    def serving(self, party: str) -> contextlib.AbstractContextManager[None]:
        return serving(self.folder, party, self.command())


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory, python: str) -> Federation:
    return Federation(tmp_path_factory.mktemp("parties"), python)


def differences(compared: dircmp[str], path: str = "") -> Iterator[str]:
    for name in (*compared.left_only, *compared.right_only, *compared.diff_files, *compared.funny_files):
        yield f"{path}{name}"
    for name, inner in compared.subdirs.items():
        yield from differences(inner, f"{path}{name}/")


def test_the_new_kind_is_one_file_and_one_line_in_the_registry(source: Path) -> None:
    changed = [
        line
        for package in PACKAGES
        for line in differences(dircmp(ROOT / package, source / package, ignore=["__pycache__"]), f"{package}/")
    ]
    assert sorted(changed) == ["vfl/kinds/__init__.py", "vfl/kinds/exchange.py"]
    before, after = ((at / "vfl" / "kinds" / "__init__.py").read_text("utf-8") for at in (ROOT, source))
    added = [line for line in after.splitlines() if line not in before.splitlines()]
    assert added == ['    "exchange",']
    assert len(after.splitlines()) == len(before.splitlines()) + len(added)


def test_a_check_says_what_the_new_kind_reveals_and_asks_for(federation: Federation) -> None:
    found = federation.run("job", "check", "job.toml", "--rows", ROWS)
    assert [side["role"] for side in found["sides"]] == ["first", "second"]
    assert [(line["message"], line["values"]) for line in found["learned"]] == [("ColumnSum", 1)] * 2
    assert found["must_accept"][-1] == 'acceptance.schemes of every party: "column_sums"'


def test_the_new_kind_runs_between_two_servers_and_each_keeps_both_numbers(federation: Federation) -> None:
    with federation.serving("north"), federation.serving("south"):
        federation.run("grant", "create", "job.toml", "--party", "south")
        job = federation.run("job", "submit", "job.toml", "--party", "north")["id"]
        for party, peer in (("north", "south"), ("south", "north")):
            shown = federation.over(job, party)
            assert (shown["state"], shown["step"]) == ("done", 1), shown["error"]
            assert shown["metrics"] == {
                "own_sum": float(AMOUNTS[party].sum()),
                "sum_of_peer": float(AMOUNTS[peer].sum()),
            }
            assert shown["plan"]["rows"] == ROWS
            assert {line["kind"] for line in shown["traffic"]} >= {"ColumnSum"}
            federation.run("job", "report", job, "--party", party, "--output", f"{party}.html")
            page = (federation.folder / f"{party}.html").read_text("utf-8")
            assert "Each party read the exact sum of the other" in page


def test_a_party_that_does_not_allow_what_the_new_kind_discloses_refuses_it(federation: Federation) -> None:
    settings = federation.folder / "south" / "party.toml"
    allowed = settings.read_text("utf-8")
    settings.write_text(allowed.replace('schemes = ["column_sums"]', 'schemes = ["ckks"]'), "utf-8")
    try:
        with federation.serving("north"), federation.serving("south"):
            job = federation.run("job", "submit", "job.toml", "--party", "north")["id"]
            assert "acceptance.schemes" in federation.over(job, "north")["error"]["message"]
    finally:
        settings.write_text(allowed, "utf-8")


def test_a_role_that_tells_more_than_its_plan_is_stopped_by_its_own_server(
    federation: Federation, source: Path
) -> None:
    """Whatever has got into a worker: its server counts what leaves, and knows the plan."""
    written, line = source / "vfl" / "kinds" / TOY.name, "yield from send(peer, ColumnSum(own))  # 1"
    honest = written.read_text("utf-8")
    assert line in honest
    written.write_text(honest.replace(line, f"{line}\n    {line}"), "utf-8")
    try:
        with federation.serving("north"), federation.serving("south"):
            federation.run("grant", "create", "job.toml", "--party", "south")
            job = federation.run("job", "submit", "job.toml", "--party", "north")["id"]
            ended = [federation.over(job, party) for party in ("north", "south")]
            read = {party: federation.run("ledger", "--party", party)["lines"] for party in ("north", "south")}
    finally:
        written.write_text(honest, "utf-8")
    assert {shown["state"] for shown in ended} == {"failed"}
    assert "reveal_budget_spent" in {shown["error"]["code"] for shown in ended}
    for shown in ended:
        sums = [
            line["messages"] for line in shown["traffic"] if (line["direction"], line["kind"]) == ("sent", "ColumnSum")
        ]
        assert sums in ([], [1])
    assert all(line["open_values"] == 0 for lines in read.values() for line in lines)
