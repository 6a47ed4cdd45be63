"""`vfl job` against two real party servers."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from api.demo.folder import write_parties
from api.demo.servers import Servers, free_ports
from api.demo.training.agreement import agree
from api.demo.training.run import PARTIES
from api.demo.training.tables import FEATURE_PARTY, LABEL_PARTY, breast_cancer
from parties.limits import TEXT_BYTES

Run = Callable[..., tuple[int, str, str]]

LONG = 5000
"""Epochs of a job that is still running when a test looks."""

PROCESS_SECONDS = 60
TABLE = breast_cancer()


@pytest.fixture(scope="module")
def proxy() -> Iterator[socket.socket]:
    """Servers and commands of this page all run with a proxy in the environment; it takes calls and answers none."""
    # At an address of its own: a server of another test may still call a port that a peer of its own had.
    with pytest.MonkeyPatch.context() as environment, socket.create_server(("127.0.0.77", 0)) as listener:
        listener.setblocking(False)
        url = f"http://127.0.0.77:{listener.getsockname()[1]}"
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
            for spelled in (name, name.lower()):
                environment.setenv(spelled, "" if name == "NO_PROXY" else url)
        yield listener


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, proxy: socket.socket) -> Iterator[Path]:
    """A folder with both parties, their servers running."""
    folder = tmp_path_factory.mktemp("parties")
    ports = free_ports(PARTIES)
    agreement = agree(TABLE, scheme="none", epochs=None, seed=0)
    write_parties(folder, TABLE, agreement, 0, ports)
    with Servers(folder, ports, PARTIES[0]):
        yield folder


@pytest.fixture
def specification(tmp_path: Path) -> Callable[..., Path]:
    def write(epochs: int = 2, scheme: str = "none") -> Path:
        path = tmp_path / f"job-{epochs}-{scheme}.toml"
        path.write_text(agree(TABLE, scheme=scheme, epochs=epochs, seed=0).text)
        return path

    return write


def data(out: str) -> dict[str, Any]:
    answer = json.loads(out)
    assert answer["status"] == "ok", answer
    found: dict[str, Any] = answer["data"]
    return found


def grant(run: Run, folder: Path, spec: Path) -> None:
    """By the feature party's operator."""
    assert run("grant", "create", spec, "--party", folder / FEATURE_PARTY)[0] == 0


def submit(run: Run, folder: Path, spec: Path, *more: str) -> str:
    grant(run, folder, spec)
    code, out, _ = run("job", "submit", spec, "--party", folder / LABEL_PARTY, "--format", "json", *more)
    assert code == 0
    return str(data(out)["id"])


def test_a_job_is_submitted_watched_to_its_end_and_shown_on_both_sides(
    run: Run, folder: Path, specification: Callable[..., Path]
) -> None:
    job = submit(run, folder, specification())
    code, out, err = run("job", "watch", job, "--party", folder / LABEL_PARTY, "--format", "jsonl")
    *events, last = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, "")
    numbers = [event["number"] for event in events]
    assert numbers == sorted(set(numbers))
    assert {"accepted", "trained"} <= {event["kind"] for event in events}
    assert last["data"]["state"] == "done"
    assert last["data"]["metrics"]["auc"] > 0.9

    theirs = data(run("job", "show", job, "--party", folder / FEATURE_PARTY, "--format", "json")[1])
    assert (theirs["id"], theirs["role"], theirs["metrics"]) == (job, "feature", {})

    listed = data(run("job", "list", "--party", folder / FEATURE_PARTY, "--format", "json")[1])["jobs"]
    assert job in {entry["id"] for entry in listed}

    code, out, err = run("job", "show", job, "--party", folder / LABEL_PARTY)
    assert (code, err) == (0, "")
    assert "Embedding" in out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert any(re.fullmatch(r"auc 0\.\d{4} \(0\.\d{4} to [01]\.\d{4}, 95 % interval\)", line) for line in lines)
    specification_shown = data(run("job", "show", job, "--party", folder / LABEL_PARTY, "--format", "json")[1])[
        "specification"
    ]
    for party, agreed in specification_shown["data"].items():
        assert f"{party}, {agreed['dataset']}: {agreed['columns'][0]}, " in " ".join(lines)
    assert f"purpose {specification_shown['job']['purpose']}" in lines
    path = str(folder / LABEL_PARTY / "models" / job / "model.safetensors")
    assert max(len(line) for line in out.splitlines() if path not in line) <= 80
    assert [line.split(maxsplit=1) for line in out.splitlines() if path in line] == [["model", path]]
    assert job in run("job", "list", "--party", folder / LABEL_PARTY)[1]

    own, their = (report(run, folder / party, job) for party in (LABEL_PARTY, FEATURE_PARTY))
    for seen in ("calibration", "(ROC)", "Length of the mean gradient", "radius_error", "demonstration on one machine"):
        assert seen in own
    assert own.count("<svg") == 4
    assert "(ROC)" not in their
    assert "What each side could see" in their


def report(run: Run, party: Path, job: str) -> str:
    """The page of a job, which needs nothing else."""
    code, out, err = run("job", "report", job, "--party", party)
    assert (code, out, err) == (0, f"report-{job}.html\n", "")
    page = Path(f"report-{job}.html").read_text("utf-8")
    assert len(page.encode()) < 1_000_000
    assert "<script" not in page
    assert not re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?(?:https?:)?//", page)
    return page


def test_a_report_that_cannot_be_written_or_would_replace_a_file_is_named(
    run: Run, folder: Path, specification: Callable[..., Path]
) -> None:
    job = submit(run, folder, specification())
    report = ("job", "report", job, "--party", folder / LABEL_PARTY, "--format", "json", "--output")
    code, out, _ = run(*report, "none/page.html")
    assert (code, json.loads(out)["error_code"]) == (4, "file_unwritable")
    mine = Path("mine.html")
    mine.write_text("mine")
    code, out, _ = run(*report, mine)
    assert (code, json.loads(out)["error_code"], mine.read_text()) == (4, "file_exists", "mine")
    assert run(*report, mine, "--force")[0] == 0
    assert mine.read_text("utf-8").startswith("<!doctype html>")


def test_a_proxy_in_the_environment_is_never_asked(
    run: Run, folder: Path, specification: Callable[..., Path], proxy: socket.socket
) -> None:
    job = submit(run, folder, specification(epochs=1))
    assert run("job", "watch", job, "--party", folder / LABEL_PARTY, "--quiet")[0] == 0  # it knows the job at once
    with pytest.raises(BlockingIOError):
        proxy.accept()


def test_a_server_is_found_by_url_and_token_file_too(run: Run, folder: Path) -> None:
    party = folder / LABEL_PARTY
    port = next(line for line in (party / "party.toml").read_text().splitlines() if line.startswith("operator_port"))
    url = f"http://127.0.0.1:{port.split()[-1]}"
    assert run("job", "list", "--server", url, "--token-file", party / "operator.token")[0] == 0
    code, out, _ = run(
        "job", "list", "--server", url, "--token-file", folder / FEATURE_PARTY / "operator.token", "--format", "json"
    )
    assert (code, json.loads(out)["error_code"]) == (2, "unauthorised")


def test_repeating_a_submit_with_one_key_gives_one_job(
    run: Run, folder: Path, specification: Callable[..., Path]
) -> None:
    key = ("--idempotency-key", "autumn")
    assert submit(run, folder, specification(), *key) == submit(run, folder, specification(), *key)
    arguments = ("--party", folder / LABEL_PARTY, "--format", "json")
    code, out, _ = run("job", "submit", specification(epochs=3), *key, *arguments)
    assert (code, json.loads(out)["error_code"]) == (4, "idempotency_key_reused")
    code, out, err = run("job", "submit", specification(), *key, "--party", folder / LABEL_PARTY)
    assert (code, out.strip()) == (0, submit(run, folder, specification(), *key))
    assert "Follow it with `vfl job watch" in err


def test_a_specification_with_a_typing_slip_names_the_nearest_key(run: Run, folder: Path, tmp_path: Path) -> None:
    spec = tmp_path / "slip.toml"
    spec.write_text(agree(TABLE, scheme="none", epochs=1, seed=0).text.replace("epochs =", "epohs ="))
    code, out, _ = run("job", "submit", spec, "--party", folder / LABEL_PARTY, "--format", "json")
    answer = json.loads(out)
    assert (code, answer["error_code"]) == (4, "invalid_spec")
    assert "epochs" in answer["hint"]
    assert answer["message"].startswith(f"{spec}: ")
    assert json.loads(run("job", "check", spec, "--format", "json")[1])["message"] == answer["message"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("epochs = 2", "epochs = 1000000000"),
        ("epochs = 2", f"epochs = {'9' * 5000}"),
        ("deadline_seconds = 3600", "deadline_seconds = 10000000000000"),
        ('purpose = "', 'purpose = "\\u001b[31m'),
        ("[job]", f"{'.'.join('a' * 20_000)} = 1\n[job]"),
        ("[job]", f"deep = {'[' * 40_000}\n[job]"),
        ("[job]", f"# {'x' * TEXT_BYTES}\n[job]"),
        ('kind = "linear"', f'kind = "mlp", hidden = {[4096] * 8}'),
        ('kind = "linear"', f'kind = "mlp", hidden = {[8] * 9}'),
    ],
    ids=["epochs", "digits", "deadline", "letters", "dots", "depth", "size", "width", "layers"],
)
def test_a_check_and_a_submit_refuse_what_no_party_can_raise_in_the_same_words(
    run: Run, folder: Path, specification: Callable[..., Path], old: str, new: str
) -> None:
    path = specification()
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    checked = run("job", "check", path, "--format", "json")
    submitted = run("job", "submit", path, "--party", folder / LABEL_PARTY, "--format", "json")
    assert (checked[0], submitted[0]) == (4, 4)
    ours, theirs = json.loads(checked[1]), json.loads(submitted[1])
    assert [ours[key] for key in ("error_code", "message", "hint")] == [
        theirs[key] for key in ("error_code", "message", "hint")
    ]
    assert ours["error_code"] in {"invalid_spec", "spec_conflict"}


def test_what_a_label_was_taken_for_is_printed_by_submit_and_show(
    run: Run, folder: Path, specification: Callable[..., Path]
) -> None:
    path = folder / LABEL_PARTY / "rows.csv"
    written = path.read_text()
    header, *rows = written.splitlines()
    at = header.split(",").index(TABLE.label)
    cells = [row.split(",") for row in rows]
    for row in cells:
        row[at] = {"0": "1", "1": "2"}[row[at]]
    party = ("--party", folder / LABEL_PARTY)
    try:
        path.write_text("\n".join([header, *map(",".join, cells)]) + "\n")
        grant(run, folder, specification(epochs=1))
        code, out, err = run("job", "submit", specification(epochs=1), *party)
        assert code == 0
        assert run("job", "watch", out.strip(), *party, "--quiet")[0] == 0
    finally:
        path.write_text(written)
    guess = "holds 1 and 2: 2, the greater, is taken for positive"
    assert f"guess: the label '{TABLE.label}' {guess}" in " ".join(err.split())
    shown = " ".join(run("job", "show", out.strip(), *party)[1].split())
    assert guess in shown
    assert "classes 1, 2 (positive)" in shown


def test_a_job_a_rule_refuses_exits_with_1_and_names_the_rule(
    run: Run, folder: Path, specification: Callable[..., Path]
) -> None:
    code, out, _ = run(
        "job", "submit", specification(scheme="ckks"), "--party", folder / LABEL_PARTY, "--format", "json"
    )
    answer = json.loads(out)
    assert (code, answer["error_code"]) == (1, "policy_refused")
    assert "schemes" in answer["message"]


def test_a_job_nobody_knows_is_a_wrong_argument(run: Run, folder: Path) -> None:
    code, out, _ = run("job", "show", "none", "--party", folder / LABEL_PARTY, "--format", "json")
    assert (code, json.loads(out)["error_code"]) == (4, "unknown_job")


def test_watching_stops_after_its_time_and_the_job_goes_on_until_it_is_cancelled(
    run: Run, folder: Path, specification: Callable[..., Path]
) -> None:
    job = submit(run, folder, specification(epochs=LONG))
    party = ("--party", folder / LABEL_PARTY)
    code, out, _ = run("job", "watch", job, *party, "--timeout", "0.1", "--format", "json")
    assert (code, json.loads(out)["error_code"]) == (3, "watch_timeout")
    assert "It is not over" in report(run, folder / LABEL_PARTY, job)

    state = data(run("job", "cancel", job, *party, "--format", "json")[1])["state"]
    assert state in {"running", "cancelled"}
    code, out, _ = run("job", "watch", job, *party, "--format", "json", "--timeout", "30")
    assert code == 1
    assert json.loads(out)["data"]["state"] == "cancelled"
    assert "Why it ended" in report(run, folder / LABEL_PARTY, job)


def test_ctrl_c_only_detaches_from_a_job(run: Run, folder: Path, specification: Callable[..., Path]) -> None:
    job = submit(run, folder, specification(epochs=LONG))
    party = ("--party", str(folder / LABEL_PARTY))
    watching = subprocess.Popen(
        [sys.executable, "-m", "api.cli.main", "job", "watch", job, *party], stderr=subprocess.PIPE, text=True
    )
    assert watching.stderr is not None
    assert job in watching.stderr.readline()
    watching.send_signal(signal.SIGINT)
    _, err = watching.communicate(timeout=PROCESS_SECONDS)
    assert watching.returncode == 130
    assert "the job goes on" in err

    assert data(run("job", "show", job, *party, "--format", "json")[1])["state"] in {"proposed", "running"}
    assert run("job", "cancel", job, *party)[0] == 0


OF_ROUNDS = """
job = { name = "clinics", protocol = "rounds", task = "binary", purpose = "research" }
roster = { aggregator = "hub", clients = ["ada", "bob"] }
train = { batch_rows = 16 }
rounds = { rounds = 4, min_clients = 1 }
[model]
columns = ["age", "dose"]
label = "ill"
network = "mlp"
hidden = [4]
input_shape = [2]
input_range = [0.0, 100.0]
[data]
hub = { test = "clinic" }
ada = { dataset = "rows" }
bob = { dataset = "rows" }
"""


def test_a_job_of_rounds_shows_its_series_and_notices() -> None:
    import msgspec
    from rich.console import Console

    from api.cli.job_text import job_text
    from parties.storage.database import Job, now
    from vfl.kinds import read_spec
    from vfl.notices import Notice

    job = Job(
        id="job",
        name="digits",
        state="done",
        role="aggregator",
        party="hub",
        peers=["ada", "bob"],
        spec_digest="00",
        created_at=now(),
        step=4,
        steps=4,
        epoch=4,
        epochs=4,
        series={"accuracy": [0.25, None, 0.5, 0.75], "rate": [0.1]},
        notices=[Notice("warning", "refusal_waived", "refusal X4 is waived by rounds.allow")],
        reveals=[{"receiver": "hub", "sender": "ada", "message": "RoundReply", "values": 4, "learns": "parameters"}],
        specification=msgspec.to_builtins(read_spec(OF_ROUNDS)),
    )
    console = Console(width=80)
    with console.capture() as shown:
        console.print(job_text(msgspec.to_builtins(job)))
    lines = [" ".join(line.split()) for line in shown.get().splitlines()]
    assert "progress round 4 of 4" in lines
    assert "accuracy by round 0.25 in the first, 0.75 in the last of 3 rounds" in lines
    assert "warning refusal X4 is waived by rounds.allow" in lines
    assert "receiver learns from in messages, at most what" in lines
    assert "hub each client RoundReply 4 parameters" in lines
    assert "purpose research" in lines
    assert "data hub, clinic (test rows): age, dose, label ill" in lines
    assert "bob, rows: age, dose, label ill" in lines
