"""The entry point's steps in a clean environment: a fresh folder becomes a party and is served, without a container."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import free_ports

ENTRYPOINT = Path(__file__).parents[2] / "docker" / "entrypoint.sh"
SECONDS = 60


def environment(folder: Path, **more: str) -> dict[str, str]:
    """What a container has: a PATH with the command on it, a home, and the entry point's own settings."""
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    return {"PATH": path, "HOME": str(folder.parent), "PARTY_FOLDER": str(folder), **more}


@contextlib.contextmanager
def started(environ: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        ["sh", str(ENTRYPOINT)], env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=SECONDS)


def healthy(port: int, process: subprocess.Popen[str]) -> bool:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    return False


@pytest.fixture
def settings(tmp_path: Path) -> tuple[Path, int]:
    """A party.toml as compose mounts it, on free ports, and the operator port."""
    operator_port, peer_port = free_ports(2)
    file = tmp_path / "settings.toml"
    file.write_text(
        f'name = "label-party"\n[server]\noperator_port = {operator_port}\npeer_port = {peer_port}\n', "utf-8"
    )
    return file, operator_port


def test_an_empty_folder_becomes_a_party_and_is_served_until_it_is_told_to_stop(
    tmp_path: Path, settings: tuple[Path, int]
) -> None:
    folder, (file, port) = tmp_path / "party", settings
    with started(environment(folder, PARTY_NAME="label-party", PARTY_SETTINGS=str(file))) as process:
        assert healthy(port, process), process.communicate(timeout=SECONDS)[0]
        assert tomllib.loads((folder / "party.toml").read_text("utf-8"))["name"] == "label-party"
        assert (folder / "operator.token").stat().st_mode & 0o777 == 0o600
        assert not (folder / "party.toml.new").exists()
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0


def test_a_folder_that_is_a_party_already_keeps_its_token(tmp_path: Path, settings: tuple[Path, int]) -> None:
    folder, (file, port) = tmp_path / "party", settings
    environ = environment(folder, PARTY_NAME="label-party", PARTY_SETTINGS=str(file))
    tokens = []
    for _ in range(2):
        with started(environ) as process:
            assert healthy(port, process), process.communicate(timeout=SECONDS)[0]
            tokens.append((folder / "operator.token").read_bytes())
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) == 0
    assert tokens[0] == tokens[1]


def test_an_empty_folder_becomes_a_party_that_peers_call_at_the_address_it_is_given(
    tmp_path: Path, settings: tuple[Path, int]
) -> None:
    folder, port = tmp_path / "party", settings[1]
    ports = {"VFL_SERVER__OPERATOR_PORT": str(port), "VFL_SERVER__PEER_PORT": str(free_ports(1)[0])}
    environ = environment(folder, PARTY_NAME="bank", PARTY_ADDRESS="vfl.example.org:7102", **ports)
    with started(environ | {"PARTY_SETTINGS": str(tmp_path / "none.toml")}) as process:
        assert healthy(port, process), process.communicate(timeout=SECONDS)[0]
        server = tomllib.loads((folder / "party.toml").read_text("utf-8"))["server"]
        assert (server["peer_host"], server["address"]) == ("0.0.0.0", "vfl.example.org:7102")  # noqa: S104
        assert {path.stat().st_mode & 0o777 for path in folder.glob("identity.*")} == {0o600}
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0


def test_an_empty_folder_without_a_name_is_refused_and_stays_empty(tmp_path: Path) -> None:
    folder = tmp_path / "party"
    folder.mkdir()
    with started(environment(folder)) as process:
        output, _ = process.communicate(timeout=SECONDS)
        assert process.returncode != 0
    assert "PARTY_NAME is not set" in output
    assert not list(folder.iterdir())


def test_with_arguments_it_is_the_command_line(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", str(ENTRYPOINT), "version"],
        env=environment(tmp_path / "party"),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("vfl ")
    assert not (tmp_path / "party").exists()


def test_the_script_can_be_executed() -> None:
    assert os.access(ENTRYPOINT, os.X_OK)
