"""The operator port for people on other machines: over TLS, to the networks that party.toml names and to no other."""

import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from authority import Authority
from command_line import ROOT, VFL, run, serving
from identities import identity_of
from namespaces import two_namespaces

from api.client import Client, trusting
from api.client_problems import ServerUnreachable, TokenRefused
from parties.doctor.machine import machine
from parties.operator_tls import CA_FILE
from parties.trust.certificates import calling_context, identity_certificate

BOUND_SECONDS = 60
BANK = "bank"
ALLOWED, FOREIGN = "127.0.0.7", "127.0.0.9"
"""Where somebody calls from; neither is the address that is called."""
OPEN = f'\n[operator]\nhost = "0.0.0.0"\nallow = ["{ALLOWED}/32"]\n'


def configured(server: Any, text: str) -> Any:
    """`text` stands at the end of its party.toml."""
    path = server.folder / "party.toml"
    path.write_text(path.read_text() + text)
    return server


def url(server: Any) -> str:
    return f"https://127.0.0.1:{server.operator_port}"


def vfl(*arguments: object, folder: Path = ROOT) -> tuple[int, dict[str, Any]]:
    """The exit code, and the envelope."""
    command = [VFL, *map(str, arguments), "--format", "json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=BOUND_SECONDS, check=False)
    return done.returncode, json.loads(done.stdout)


def health(server: Any, source: str, tls: ssl.SSLContext) -> int:
    """The status of an answer to somebody who calls from this address."""
    transport = httpx.HTTPTransport(verify=tls, local_address=source)
    with httpx.Client(transport=transport, timeout=BOUND_SECONDS, trust_env=False) as client:
        return client.get(f"{url(server)}/healthz").status_code


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory, new_party: Callable[..., Any]) -> Iterator[Any]:
    """Its operator port answers on every address, and its server has issued the certificate itself."""
    server = configured(new_party(tmp_path_factory.mktemp("operator") / BANK, BANK, {}, {}), OPEN)
    yield server.start()
    server.close()


@pytest.fixture
def carried(bank: Any, tmp_path: Path) -> list[object]:
    """What an operator takes along to another machine, and names there."""
    for name in ("operator.token", CA_FILE):
        shutil.copy(bank.folder / name, tmp_path)
    return ["--server", url(bank), "--token-file", tmp_path / "operator.token", "--ca", tmp_path / CA_FILE]


# Before it starts


def test_a_port_that_others_could_reach_unguarded_is_refused_by_the_server_and_named_by_doctor(
    tmp_path: Path, new_party: Callable[..., Any]
) -> None:
    server = new_party(tmp_path / BANK, BANK, {}, {})
    before = (server.folder / "party.toml").read_text()
    for text, told in (
        ('host = "0.0.0.0"', "allow must name the networks"),
        (
            'host = "0.0.0.0"\nallow = ["10.0.0.0/8"]\ncertificate = "own.pem"\nkey = "own.key"',
            "own.pem cannot be read",
        ),
    ):
        (server.folder / "party.toml").write_text(f"{before}\n[operator]\n{text}\n")
        command = [VFL, "party", "serve", server.folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=BOUND_SECONDS, check=False)
        assert done.returncode == 4
        assert told in done.stderr
        assert "invalid_settings" in done.stderr
        failed = [each for each in machine(server.folder) if each.result == "failed"]
        assert [each.check for each in failed if told in each.text] in (["party.toml"], ["operator port"])


# Whom it answers


def test_from_another_machine_the_command_line_pins_the_identity_key(bank: Any, carried: list[object]) -> None:
    code, answer = vfl("job", "list", *carried)
    assert (code, answer["data"]["jobs"]) == (0, [])
    code, answer = vfl("doctor", *carried)
    assert code == 0, answer
    assert carried[1] in next(e["text"] for e in answer["data"]["findings"] if e["check"] == "runs")


def test_python_pins_it_too_and_needs_the_token(bank: Any, carried: list[Any]) -> None:
    with Client(url(bank), bank.token, tls=trusting(carried[5])) as client:
        assert client.healthy()
        assert list(client.jobs()) == []
    with Client(url(bank), "wrong", tls=trusting(carried[5])) as client, pytest.raises(TokenRefused):
        client.version()


def test_on_its_own_machine_the_folder_is_enough(bank: Any) -> None:
    assert vfl("job", "list", "--party", bank.folder)[0] == 0
    (line,) = (each for each in machine(bank.folder) if each.check == "operator port")
    assert line.result == "ok"
    assert f"from {ALLOWED}/32" in line.text


def test_other_addresses_are_refused_before_the_handshake_counted_and_logged(bank: Any) -> None:
    tls = calling_context((bank.folder / CA_FILE).read_bytes())
    assert health(bank, ALLOWED, tls) == 200
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", bank.operator_port), BOUND_SECONDS, (FOREIGN, 0)) as connection:
            connection.settimeout(BOUND_SECONDS)
            try:
                connection.sendall(b"\x16\x03\x01")
                assert connection.recv(1) == b""
            except ConnectionError:
                pass
    with pytest.raises(httpx.TransportError):
        health(bank, FOREIGN, tls)
    lines = [line for line in (bank.folder / "server.log").read_text().splitlines() if f"from {FOREIGN}: " in line]
    assert len(lines) == 1  # one a minute says so; the next one says how many more there were
    assert "operator port" in lines[0]
    assert "in no network that may call" in lines[0]


def test_it_speaks_tls_1_3_alone(bank: Any) -> None:
    old = calling_context((bank.folder / CA_FILE).read_bytes())
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(httpx.ConnectError):
        health(bank, ALLOWED, old)
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{bank.operator_port}/healthz", trust_env=False, timeout=BOUND_SECONDS)


def test_a_page_in_a_browser_is_refused_over_tls_as_well(bank: Any) -> None:
    tls = calling_context((bank.folder / CA_FILE).read_bytes())
    with httpx.Client(verify=tls, trust_env=False, timeout=BOUND_SECONDS) as client:
        answer = client.get(f"{url(bank)}/healthz", headers={"origin": "https://pages.example"})
    assert answer.status_code == 403


# Whom the command line believes


def test_a_server_of_another_key_gets_no_token(bank: Any, carried: list[Any]) -> None:
    carried[5].write_bytes(identity_certificate(identity_of("another party").private))
    code, answer = vfl("job", "list", *carried)
    assert (code, answer["error_code"]) == (2, "server_certificate_refused")
    assert "--ca" in answer["hint"]
    code, answer = vfl("job", "list", *carried[:4])  # the authorities of this system
    assert (code, answer["error_code"]) == (2, "server_certificate_refused")
    carried[5].write_text("nothing")
    code, answer = vfl("job", "list", *carried)
    assert (code, answer["error_code"]) == (2, "certificate_unreadable")


def test_a_token_does_not_travel_in_clear(bank: Any, carried: list[Any]) -> None:
    code, answer = vfl("job", "list", "--server", "http://bank.example.org:7101", *carried[2:4])
    assert (code, answer["error_code"]) == (2, "server_not_secure")
    with pytest.raises(ServerUnreachable):
        Client("http://127.0.0.1.example.org:7101", "token")
    code, answer = vfl("job", "list", "--server", f"http://127.0.0.1:{bank.operator_port}", *carried[2:])
    assert (code, answer["error_code"]) == (4, "invalid_arguments")


def test_the_certificate_that_pins_the_key_satisfies_a_strict_reader(bank: Any) -> None:
    strict = calling_context((bank.folder / CA_FILE).read_bytes())
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    assert health(bank, ALLOWED, strict) == 200


def test_after_a_rotation_it_shows_a_certificate_of_the_new_key_which_is_carried_over_anew(
    tmp_path: Path, new_party: Callable[..., Any]
) -> None:
    shop = configured(new_party(tmp_path / "shop", "shop", {}, {}), OPEN).start()
    try:
        old = (shop.folder / CA_FILE).read_bytes()
        code, _ = vfl("key", "rotate", "--yes", "--party", shop.folder)
        assert (code, vfl("key", "show", "--party", shop.folder)[0]) == (0, 0)
        assert health(shop, ALLOWED, calling_context((shop.folder / CA_FILE).read_bytes())) == 200
        with pytest.raises(httpx.ConnectError):
            health(shop, ALLOWED, calling_context(old))
    finally:
        shop.close()


# A certificate of the organisation's own


def test_an_own_certificate_must_name_the_host_and_a_newer_one_is_taken_up_by_itself(
    tmp_path: Path, new_party: Callable[..., Any]
) -> None:
    authority, server = Authority(), new_party(tmp_path / BANK, BANK, {}, {})
    authority.write(server.folder, "192.0.2.7")
    configured(server, OPEN + 'certificate = "own.pem"\nkey = "own.key"\n').start()
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    elsewhere = ["--server", url(server), "--token-file", server.folder / "operator.token", "--ca", tmp_path / "ca.pem"]
    try:
        code, answer = vfl("job", "list", *elsewhere)
        assert (code, answer["error_code"]) == (2, "server_certificate_refused")
        assert "127.0.0.1" in answer["message"]
        assert vfl("job", "list", "--party", server.folder)[0] == 0  # who reads the folder knows the certificate itself
        authority.write(server.folder, "127.0.0.1", days=10)
        assert vfl("job", "list", *elsewhere)[0] == 0
        (line,) = (each for each in machine(server.folder) if each.check == "operator port")
        assert line.result == "warning"
        (server.folder / "own.key").write_text("half a file")
        assert vfl("job", "list", *elsewhere)[0] == 0  # it still has what it had
    finally:
        server.close()


# Two machines


def test_an_operator_on_a_machine_that_is_allowed_is_answered_and_one_on_another_is_not(tmp_path: Path) -> None:
    with two_namespaces([BANK, "desk"]) as (own, desk):
        run(tmp_path, "party", "init", BANK, "--name", BANK)
        settings = tmp_path / BANK / "party.toml"
        before = settings.read_text()
        for allowed in (desk.address, own.address):
            settings.write_text(f'{before}\n[operator]\nhost = "{own.address}"\nallow = ["{allowed}"]\n')
            with serving(tmp_path, BANK, (*own.prefix, VFL)):
                port = next(line.split()[2] for line in before.splitlines() if line.startswith("operator_port"))
                at = ["--server", f"https://{own.address}:{port}", "--token-file", f"{BANK}/operator.token"]
                command = [*desk.prefix, VFL, "job", "list", *at, "--ca", f"{BANK}/{CA_FILE}", "--format", "json"]
                done = subprocess.run(
                    command, cwd=tmp_path, capture_output=True, text=True, timeout=BOUND_SECONDS, check=False
                )
                code = None if allowed == desk.address else "server_unreachable"
                assert json.loads(done.stdout)["error_code"] == code, done.stderr
                assert run(tmp_path, "job", "list", "--party", BANK, vfl=(*own.prefix, VFL))["jobs"] == []
