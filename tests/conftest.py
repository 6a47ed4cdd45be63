"""What all tests share: how their processes start, a PostgreSQL server, and that Paillier needs its extra."""

import os
import sys
from collections.abc import Iterator

import pytest
from debian_postgresql import DebianPostgresql, running

# As in a worker: processes share the cores, and threads that wait for each other's pieces compute nothing.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from crypto.paillier_parameters import missing_packages

# The tests start hundreds of processes. With this variable set each would compile every file anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# `make test-paillier` runs them in an environment of their own; in this one there is nothing that they could run on.
collect_ignore_glob = ["*/paillier/*"] if missing_packages() else []


@pytest.fixture(scope="session")
def postgresql() -> Iterator[DebianPostgresql]:
    with running() as server:
        yield server


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = [each for each in terminalreporter.stats.get("skipped", []) if "PostgreSQL" in str(each.longrepr)]
    if skipped:
        line = f"{len(skipped)} tests were skipped that need PostgreSQL: apt-get install postgresql"
        terminalreporter.write_line(line, red=True, bold=True)
