"""The demonstration as a user runs it: a command in a folder of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

LIMITS_OF_TESTS = {"OMP_NUM_THREADS"}
"""A user has none: what servers compute equals what the demonstration computes on as many threads as it likes."""
DEMO_SECONDS = 600
"""A bound that ends a demonstration that hangs; how long one may take is measured in benchmarks/, not here."""


@dataclass(frozen=True)
class Ended:
    """How a demonstration ended."""

    folder: Path
    code: int
    answer: dict[str, Any]
    """The envelope."""
    stderr: str

    @property
    def data(self) -> dict[str, Any]:
        assert self.code == 0, (self.answer, self.stderr)
        data: dict[str, Any] = self.answer["data"]
        return data


@pytest.fixture(scope="session")
def demo() -> Callable[..., Ended]:
    """Run `vfl demo --format json` with these arguments and this folder as --output, and these variables set."""

    def demo(folder: Path, *arguments: str, **environment: str) -> Ended:
        command = [
            sys.executable,
            "-m",
            "api.cli.main",
            "demo",
            "--output",
            str(folder),
            "--format",
            "json",
            *arguments,
        ]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=DEMO_SECONDS,
            check=False,
            env={name: value for name, value in os.environ.items() if name not in LIMITS_OF_TESTS} | environment,
        )
        return Ended(folder, done.returncode, json.loads(done.stdout), done.stderr)

    return demo
