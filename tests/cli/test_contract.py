"""What every command promises a script: streams, envelope, exit codes (docs/cli.md)."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from api.cli.main import app
from api.cli.output import Format, FormatOption

Run = Callable[..., tuple[int, str, str]]

ENVELOPE = {"schema_version", "status", "data", "error_code", "message", "hint", "docs"}
COMMANDS = ("", "demo", "run", "version", "party", "party init", "party serve", "ledger", "job", "grant", *(
    f"job {verb}"
    for verb in ("check", "submit", "list", "show", "diff", "approve", "reject", "watch", "report", "cancel")
), *(f"grant {verb}" for verb in ("create", "list", "revoke")))  # fmt: skip
NOT_NEEDED_FOR_HELP = {
    "httpx",
    "pydantic_settings",
    "polars",
    "sklearn",
    "matplotlib",
    "fastapi",
    "sqlalchemy",
    "numpy",
}
PROCESS_SECONDS = 60


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_in_eighty_columns(
    run: Run, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = run(*command.split(), "--help")
    assert (code, err) == (0, "")
    assert "Usage: vfl" in out
    assert "<bool>" not in out
    assert max(len(line) for line in out.splitlines()) <= 80


def test_a_sentence_of_help_runs_on_to_the_width_of_the_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = [line.strip() for line in run("demo", "--help")[1].splitlines()]
    filled = lines.index("Two parties that hold different columns of the same rows, or with --mode an")
    assert lines[filled + 1].startswith("aggregator and three clients that hold different rows. Each is")


def test_help_loads_nothing_that_takes_time() -> None:
    script = (
        "import sys\nfrom api.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: print(*sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=PROCESS_SECONDS, check=True
    )
    assert NOT_NEEDED_FOR_HELP.isdisjoint(done.stderr.split())


def test_the_version_is_an_option_too_and_python_runs_the_package(run: Run) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vfl", "--version"], capture_output=True, text=True, timeout=PROCESS_SECONDS, check=True
    )
    assert done.stdout == run("--version")[1] == run("version")[1]


def test_the_version_is_text_or_an_envelope(run: Run) -> None:
    assert run("version")[1].startswith("vfl ")
    code, out, err = run("version", "--format", "json")
    answer = json.loads(out)
    assert (code, err) == (0, "")
    assert answer.keys() == ENVELOPE
    assert (answer["schema_version"], answer["status"]) == ("1", "ok")
    assert answer["data"]["version"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("version", "--colour"),
        ("versoin",),
        ("job", "submit"),
        ("job", "watch", "some-job", "--timeout", "soon"),
        ("demo", "--epochs", "0"),
        ("demo", "--dataset", "iris"),
        ("demo", "--layout", "columns"),
        ("demo", "--top", "deep"),
        ("demo", "--dataset", "digits", "--label-file", "a.csv"),
        ("demo", "--label-file", "a.csv"),
        ("demo", "--task", "binary"),
        ("job", "list", "--server", "http://127.0.0.1:1"),
        ("job", "list", "--server", "http://127.0.0.1:1", "--party", "."),
    ],
    ids=" ".join,
)
def test_wrong_arguments_exit_with_4_and_the_envelope_says_so(run: Run, arguments: tuple[str, ...]) -> None:
    code, out, err = run(*arguments, "--format", "json")
    answer = json.loads(out)
    assert (code, err) == (4, "")
    assert answer.keys() == ENVELOPE
    assert (answer["status"], answer["error_code"]) == ("error", "invalid_arguments")
    assert answer["message"]
    assert answer["hint"]


def test_an_unknown_format_is_a_wrong_argument(run: Run) -> None:
    code, out, err = run("version", "--format", "yaml")
    assert (code, out) == (4, "")
    assert "yaml" in err


def test_an_error_in_text_goes_to_stderr_with_its_cure_and_its_code(run: Run) -> None:
    code, out, err = run("job", "list")
    assert (code, out) == (4, "")
    assert err.startswith("error: there is no party.toml in ")
    assert "--party DIR" in err
    assert err.endswith("[party_not_found]\n")


def test_a_server_that_is_away_is_a_connection_error(run: Run, token_file: Path) -> None:
    code, out, _ = run("job", "list", "--server", "http://127.0.0.1:1", "--token-file", token_file, "--format", "json")
    assert code == 2
    assert json.loads(out)["error_code"] == "server_unreachable"


def test_a_token_file_that_is_missing_is_an_authentication_error(run: Run, tmp_path: Path) -> None:
    code, out, _ = run(
        "job", "list", "--server", "http://127.0.0.1:1", "--token-file", tmp_path / "none", "--format", "json"
    )
    assert code == 2
    assert json.loads(out)["error_code"] == "operator_token_unreadable"


def test_a_server_of_another_kind_is_named_as_such(run: Run, token_file: Path, other_server: str) -> None:
    code, out, _ = run("job", "list", "--server", other_server, "--token-file", token_file, "--format", "json")
    assert code == 2
    assert json.loads(out)["error_code"] == "unexpected_answer"


def test_a_specification_that_cannot_be_read_is_named(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("job", "submit", tmp_path / "no.toml", "--format", "json")
    assert code == 4
    assert json.loads(out)["error_code"] == "file_unreadable"


def test_a_party_is_made_once_with_a_token_only_its_owner_can_read(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "bank"
    code, out, _ = run("party", "init", folder, "--name", "bank", "--format", "json")
    data = json.loads(out)["data"]
    assert code == 0
    assert 0 < data.pop("operator_port") < data.pop("peer_port")
    assert data.pop("address").startswith("127.0.0.1:")
    assert re.fullmatch(r"([0-9a-f]{4} ){7}[0-9a-f]{4}", data.pop("fingerprint"))
    assert data == {"name": "bank", "settings": f"{folder}/party.toml", "token_file": f"{folder}/operator.token"}
    assert (folder / "operator.token").stat().st_mode & 0o777 == 0o600
    before = (folder / "operator.token").read_bytes()

    code, out, _ = run("party", "init", folder, "--name", "bank", "--format", "json")
    assert code == 4
    assert json.loads(out)["error_code"] == "invalid_settings"
    assert (folder / "operator.token").read_bytes() == before


def test_a_party_where_no_folder_can_be_made_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, out, _ = run("party", "init", tmp_path / "file", "--name", "bank", "--format", "json")
    assert (code, json.loads(out)["error_code"]) == (4, "invalid_settings")


def test_serving_a_folder_without_a_party_says_how_to_make_one(run: Run, tmp_path: Path) -> None:
    code, _, err = run("party", "serve", tmp_path)
    assert code == 4
    assert "vfl party init" in err


def test_peers_in_party_toml_are_refused_and_told_how_to_enrol(run: Run, tmp_path: Path) -> None:
    run("party", "init", tmp_path / "bank", "--name", "bank")
    with (tmp_path / "bank" / "party.toml").open("a") as settings:
        settings.write('\n[peers.telco]\nurl = "http://127.0.0.1:7202"\n')
    code, out, err = run("party", "serve", tmp_path / "bank")
    assert (code, out) == (4, "")
    assert "peers no longer stand in party.toml" in " ".join(err.split())
    assert "vfl peer invite" in err
    assert err.endswith("[invalid_settings]\n")


@pytest.mark.parametrize("command", ["party serve", "party init --name ada", "demo --output", "audit verify"])
def test_a_path_that_the_system_refuses_is_no_internal_error(run: Run, command: str) -> None:
    code, out, err = run(*command.split(), "a" * 300)
    assert (code, out) == (4, "")
    assert "File name too long" in " ".join(err.split())
    assert err.endswith("[path_refused]\n")


def test_an_unexpected_exception_is_one_sentence_and_exit_5(run: Run, broken_command: str) -> None:
    code, out, err = run(broken_command, "--format", "json")
    answer = json.loads(out)
    assert (code, answer["error_code"]) == (5, "internal_error")
    assert "out of cheese" in answer["message"]
    assert "Traceback" not in out + err


def test_the_traceback_is_shown_on_request(run: Run, broken_command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VFL_DEBUG", "1")
    code, _, err = run(broken_command)
    assert code == 5
    assert "Traceback" in err


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "operator.token"
    path.write_text("a token\n")
    return path


@pytest.fixture
def broken_command() -> Iterator[str]:
    @app.command("broken")
    def broken(output: FormatOption = Format.TEXT) -> None:
        raise RuntimeError("out of cheese")

    yield "broken"
    app.registered_commands.pop()


class OtherServer(BaseHTTPRequestHandler):
    """Any web server that is not a party's."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<p>hello")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def other_server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), OtherServer) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()
