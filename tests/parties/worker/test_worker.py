"""The worker process: nothing but its pipe, nothing of the server's environment, gone when the pipe closes."""

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from parties.processes import NUMERIC_VARIABLES
from parties.worker.frames import Delivered, Failed, FrameReader, FrameWriter, FromWorker, RawTable, Start, WorkerInput
from parties.worker.mailbox import Mailbox
from parties.worker.main import load_bottom
from parties.worker.process import WorkerProcess
from vfl.errors import InvalidBottom
from vfl.kinds import read_spec_as
from vfl.planning.training import resolve
from vfl.spec.training import TrainingSpec

BOUND = 30.0
SPEC = """
job = {name = "waits", task = "binary"}
roster = {label = "bank", features = ["telco"]}
train = {epochs = 1, batch_rows = 2}
encryption = {scheme = "none"}
[data]
bank = {dataset = "table", label = "y"}
telco = {dataset = "table", columns = ["a"]}
"""
NOTHING = Start(b"not a spec", "bank", {"rows": RawTable(1, b"\0" * 8, None, b"")}, b"", b"", b"", "")


def start_worker(log: Path) -> tuple[WorkerProcess, list[FromWorker], list[str]]:
    frames: list[FromWorker] = []
    ends: list[str] = []
    worker = WorkerProcess(NOTHING, Mailbox[WorkerInput](), log, frames.append, ends.append)
    return worker, frames, ends


def test_frames_cross_a_pipe_whole_whatever_their_size() -> None:
    reading, writing = os.pipe()
    writer = FrameWriter(writing)
    reader: FrameReader[Delivered] = FrameReader(reading, Delivered)
    for size in (0, 1, 50_000):
        writer.write(Delivered("a", "Kind", memoryview(bytes(size))))
        frame = reader.read()
        assert frame is not None
        assert len(frame.body) == size
    os.close(writing)
    assert reader.read() is None
    os.close(reading)


def test_a_specification_that_cannot_be_read_is_a_named_failure(tmp_path: Path) -> None:
    worker, frames, ends = start_worker(tmp_path / "logs" / "job.log")
    worker.wait(BOUND)
    (failed,) = frames
    assert isinstance(failed, Failed)
    assert failed.code == "invalid_spec"
    assert ends == ["exited with status 0"]
    assert (tmp_path / "logs" / "job.log").stat().st_mode & 0o777 == 0o600


def test_a_waiting_worker_leaves_no_core_and_ends_with_its_pipe(tmp_path: Path) -> None:
    spec = resolve(read_spec_as(TrainingSpec, SPEC))
    start = Start(
        spec.encoded(), "bank", {"rows": RawTable(8, b"", bytes(64), bytes(32))}, b"", bytes(32), bytes(32), ""
    )
    inbox: Mailbox[WorkerInput] = Mailbox()
    waits, ended = threading.Event(), threading.Event()
    worker = WorkerProcess(start, inbox, tmp_path / "job.log", lambda _frame: waits.set(), lambda _how: ended.set())
    assert waits.wait(BOUND), (tmp_path / "job.log").read_text()
    limits = Path(f"/proc/{worker.pid}/limits")
    assert not limits.exists() or re.search(r"Max core file size +0 +0 ", limits.read_text())
    inbox.close()  # as when the server goes away: the pipe to the worker closes
    assert ended.wait(BOUND)


def test_of_its_servers_environment_a_worker_has_the_numeric_variables_alone_and_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("VFL_CANARY", "HTTPS_PROXY", "OPENBLAS_VERBOSE", *NUMERIC_VARIABLES):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    (tmp_path / "bottom.py").write_text("import json, os\nprint(json.dumps(dict(os.environ)))\n")
    layout = 'model = {layout = "embeddings", bottom = {kind = "private", out = 2}, top = {kind = "linear"}}'
    noise = 'protection = {cut_noise = {method = "none"}}'
    spec = resolve(read_spec_as(TrainingSpec, f"{layout}\n{noise}\n{SPEC}"))
    module = f"{tmp_path / 'bottom.py'}:build"
    start = Start(spec.encoded(), "telco", {"rows": RawTable(1, bytes(8), None, b"")}, b"", b"", b"", module)
    worker = WorkerProcess(start, Mailbox(), tmp_path / "job.log", lambda _frame: None, lambda _how: None)
    worker.wait(BOUND)  # the module has no function: the job ends
    seen = json.loads((tmp_path / "job.log").read_text().splitlines()[0])
    assert set(NUMERIC_VARIABLES) < seen.keys()
    ours = {"PATH", "LANG", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"}
    threads = {"BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"}
    assert seen.keys() - set(NUMERIC_VARIABLES) - {"LC_CTYPE"} == ours | threads
    assert seen["OMP_NUM_THREADS"] == "1"


def test_every_numeric_variable_that_reaches_a_worker_is_documented() -> None:
    section = (
        (Path(__file__).parents[3] / "docs/party_settings.md")
        .read_text("utf-8")
        .split("## What workers see of the environment")[1]
    )
    listed = section.split("**Where")[0]
    assert tuple(re.findall(r"`([A-Z_0-9]+)`", listed)) == NUMERIC_VARIABLES


def test_a_worker_exits_when_its_pipe_closes() -> None:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "parties.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.close()
    process.stdin = None
    process.communicate(timeout=BOUND)
    assert process.returncode == 3


def test_the_worker_imports_nothing_that_reaches_the_network_or_the_database() -> None:
    code = "import sys, parties.worker.main, parties.worker.runner; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    forbidden = {
        "httpx",
        "fastapi",
        "sqlalchemy",
        "parties.storage.database",
        "parties.wire.envelopes",
        "parties.wire.outbox",
        "parties.wire.transport",
    }
    assert "parties.worker.runner" in loaded
    assert not forbidden & set(loaded)


@pytest.mark.parametrize(
    ("text", "name", "why"),
    [
        ("import nothing_of_that_name\n", "build", "ModuleNotFoundError"),
        ("def other(columns, width): ...\n", "build", "KeyError"),
        ("build = 3\n", "build", "is not a function"),
        ("def build(:\n", "build", "SyntaxError"),
        (None, "build", "FileNotFoundError"),
    ],
)
def test_a_bottom_module_that_cannot_be_loaded_is_named_with_its_cause(
    tmp_path: Path, text: str | None, name: str, why: str
) -> None:
    path = tmp_path / "bottom.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InvalidBottom, match=rf"bottom\.py:{name} cannot be loaded: .*{why}"):
        load_bottom(f"{path}:{name}")


def test_a_bottom_module_is_the_function_its_owner_named(tmp_path: Path) -> None:
    (tmp_path / "bottom.py").write_text("def build(columns, width):\n    return columns, width\n")
    assert load_bottom(f"{tmp_path / 'bottom.py'}:build")(3, 2) == (3, 2)
