"""What all tests share: how their processes start, a PostgreSQL server, and that Paillier needs its extra."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from debian_postgresql import DebianPostgresql, running

# As in a worker: processes share the cores, and threads that wait for each other's pieces compute nothing.
os.environ.setdefault("OMP_NUM_THREADS", "1")


from crypto.paillier_parameters import missing_packages

ROOT = Path(__file__).parent

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


LONGEST_FIRST = ("demo", "end_to_end", "test_examples.py", "toy_kind", "api", "vfl", "crypto")
"""So that no long file is begun when the others are through, and a core waits for it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """By rooms; within one, and in those that are not named, the order stays."""

    def place(item: pytest.Item) -> int:
        room = item.path.relative_to(ROOT).parts[0]
        return LONGEST_FIRST.index(room) if room in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=place)
