"""`vfl` as a person runs it, for tests of pages that say what to type."""

import contextlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
VFL = str(Path(sys.executable).with_name("vfl"))
SECONDS = 240


def run(folder: Path, *arguments: str, vfl: Sequence[str] = (VFL,)) -> Any:
    """The data of its answer; `vfl` is the command of another program, or of one elsewhere."""
    command = [*vfl, *arguments, "--format", "json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)["data"]


def at_terminal(party: Path, answer: str, *arguments: str) -> tuple[int, str]:
    """The command as a person runs it: (exit code, what was on the screen)."""
    screen, keyboard = pty.openpty()
    command = [sys.executable, "-m", "api.cli.main", *arguments, "--party", str(party)]
    with subprocess.Popen(command, stdin=keyboard, stdout=keyboard, stderr=keyboard) as process:
        os.close(keyboard)
        os.write(screen, f"{answer}\n".encode())
        shown = b""
        with contextlib.suppress(OSError):  # how a terminal says that nobody is at its other end any more
            while piece := os.read(screen, 4096):
                shown += piece
        code = process.wait(SECONDS)
    os.close(screen)
    return code, " ".join(shown.decode().split())


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def serving(folder: Path, party: str, vfl: Sequence[str] = (VFL,)) -> Iterator[None]:
    """The party's server; `vfl` as above."""
    server = subprocess.Popen([*vfl, "party", "serve", party], cwd=folder, stdout=subprocess.PIPE, text=True)
    overdue = threading.Timer(SECONDS, server.kill)
    overdue.start()
    try:
        assert server.stdout is not None
        assert "is ready" in server.stdout.readline()
        yield
        server.send_signal(signal.SIGTERM)
        assert server.wait(SECONDS) == 0
    finally:
        overdue.cancel()
        server.kill()
        server.communicate(timeout=SECONDS)


def enrol(folder: Path, inviting: str, invited: str) -> None:
    """Both servers run; the operators' part is done with the commands for scripts."""
    line = run(folder, "peer", "invite", invited, "--party", inviting)["line"]
    words = run(folder, "peer", "accept", line, "--party", invited)["words"]
    for party, peer in ((inviting, invited), (invited, inviting)):
        assert run(folder, "peer", "confirm", peer, "--words", words, "--party", party)["state"] == "trusted"


def added_on(page: Path) -> dict[str, tuple[str, str]]:
    """The data set that each party adds on a page, and its column of ids."""
    added = re.compile(r"^\$ vfl data add (\S+) \S+ --id (\S+).* --party (\S+)$", re.MULTILINE)
    return {party: (name, id_column) for name, id_column, party in added.findall(page.read_text("utf-8"))}
