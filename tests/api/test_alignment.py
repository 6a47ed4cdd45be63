"""Two real servers align their tables, train on the common rows, and keep every other row to themselves."""

import base64
import hashlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load

from vfl.ids import id_hash

FIRST, OTHER = "bank", "telco"
COMMON, LONE = 400, 150
CANARY = "canary-7d1f"
SCHEMES = '["ckks", "none", "common_ids", "common_size"]'


def alignment(*, data: str = "people", telco: str = "people", rules: str = "", purpose: str = "") -> str:
    return f"""
[job]
name = "common"
protocol = "alignment"
purpose = "{purpose}"
[roster]
parties = ["{FIRST}", "{OTHER}"]
[data.{FIRST}]
dataset = "{data}"
id = ["id"]
[data.{OTHER}]
dataset = "{telco}"
id = ["id"]
[align]
minimum_ids = 100
{rules}
"""


def training(name: str, *, data: str = "people") -> str:
    rows = f'[rows]\nalignment = "{name}"' if name else ""
    return f"""
[job]
name = "credit-risk"
task = "binary"
{rows}
[roster]
label = "{FIRST}"
features = ["{OTHER}"]
[data.{FIRST}]
dataset = "{data}"
columns = ["a0"]
label = "y"
[data.{OTHER}]
dataset = "people"
columns = ["b0", "b1"]
[train]
epochs = 10
batch_rows = 80
optimiser = {{ name = "sgd", rate = 0.5 }}
[encryption]
scheme = "none"
"""


def write(path: Path, header: str, lines: list[str]) -> None:
    path.write_text("\n".join([header, *lines]) + "\n", "utf-8")


def write_tables(bank: Path, telco: Path) -> None:
    """Shuffled, each with rows of its own; what the label follows stands at both."""
    draws = np.random.default_rng(5)
    columns = draws.normal(size=(COMMON + 2 * LONE, 3))
    labels = (columns @ [1.0, 2.0, -2.0] > 0).astype(int)
    ids = [f"c-{row:04}" for row in range(COMMON)] + [f"{CANARY}-{row:04}" for row in range(2 * LONE)]
    of_bank, of_telco = (
        draws.permutation(COMMON + LONE),
        draws.permutation([*range(COMMON), *range(COMMON + LONE, len(ids))]),
    )
    write(bank / "people.csv", "id,a0,y", [f"{ids[row]},{columns[row, 0]:.17g},{labels[row]}" for row in of_bank])
    lines = [f"{ids[row]},{columns[row, 1]:.17g},{columns[row, 2]:.17g}" for row in of_telco]
    write(telco / "people.csv", "id,b0,b1", lines)
    write(bank / "numbered.csv", "id", [str(row) for row in range(COMMON)])


def ids_in(folder: Path, name: str = "people.csv") -> list[str]:
    return [line.split(",")[0] for line in (folder / name).read_text("utf-8").splitlines()[1:]]


@pytest.fixture(scope="module")
def aligning(
    tmp_path_factory: pytest.TempPathFactory, new_party: Callable[..., Any], some_ports: Callable[[int], list[int]]
) -> Iterator[tuple[Any, Any]]:
    root, ports = tmp_path_factory.mktemp("aligning"), some_ports(4)
    urls = {FIRST: f"https://127.0.0.1:{ports[1]}", OTHER: f"https://127.0.0.1:{ports[3]}"}
    files = dict.fromkeys(("people", "again", "others", "lifetime"), "people.csv") | {"many": "many.csv"}
    of_bank = files | {"numbered": "numbered.csv"}
    bank = new_party(root / FIRST, FIRST, {OTHER: urls[OTHER]}, of_bank, ports[:2])
    telco = new_party(root / OTHER, OTHER, {FIRST: urls[FIRST]}, files, ports[2:])
    write_tables(bank.folder, telco.folder)
    for server in (bank, telco):
        settings = server.folder / "party.toml"
        text = settings.read_text("utf-8").replace('["ckks", "none", "updates"]', SCHEMES)
        settings.write_text(text.replace("\nfixed_seed = true", "\nfixed_seed = true\nalignments_per_day = 2"), "utf-8")
    bank.granting = [telco]
    try:
        yield bank.start(), telco.start()
    finally:
        for server in (bank, telco):
            server.close()


def run(parties: tuple[Any, Any], spec: str) -> list[dict[str, Any]]:
    job = parties[0].submit(spec)["id"]
    return [party.over(job) for party in parties]


@pytest.fixture(scope="module")
def aligned(aligning: tuple[Any, Any]) -> list[dict[str, Any]]:
    ended = run(aligning, alignment(purpose="default score"))
    assert [job["state"] for job in ended] == ["done", "done"], [job["error"] for job in ended]
    return ended


def test_both_find_the_rows_of_a_plain_intersection_in_one_order(
    aligning: tuple[Any, Any], aligned: list[dict[str, Any]]
) -> None:
    own = [ids_in(party.folder) for party in aligning]
    found = []
    for job, ids in zip(aligned, own, strict=True):
        path = Path(job["model_path"])
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        found.append([ids[row - 1] for row in load(path.read_bytes())["rows"]])
        assert job["metrics"] == {"common_ids": COMMON, "own_ids": COMMON + LONE, "ids_of_peer": COMMON + LONE}
    assert found[0] == found[1]
    assert set(found[0]) == set(own[0]) & set(own[1])
    assert len(found[0]) == COMMON
    digests = {job["result_digest"] for job in aligned}
    assert len(digests) == 1
    assert len(digests.pop()) == 64


def test_what_the_other_side_could_see_is_declared_and_counted(aligned: list[dict[str, Any]]) -> None:
    for job in aligned:
        lines = {(line["message"], line["sender"]): line for line in job["reveals"]}
        assert lines["DoubleBlindedIds", FIRST]["values"] == COMMON + LONE  # the limit of 1,000,000 was planned
        assert lines["DoubleBlindedIds", FIRST]["messages"] == 1
        assert lines["IdCount", OTHER]["values"] == 1
        assert lines["BlindedIds", OTHER]["values"] == 0
        sent = {line["kind"]: line["messages"] for line in job["traffic"] if line["direction"] == "sent"}
        assert (sent["IdCount"], sent["SealedBatch"], sent["DoubleBlindedIds"]) == (1, 2, 1)


def test_no_id_that_one_side_alone_has_leaves_a_trace_at_the_other(
    aligning: tuple[Any, Any], aligned: list[dict[str, Any]]
) -> None:
    """No id and no hash of one stands in a file of the other side: its database, logs, results."""
    folders = [party.folder for party in aligning]
    for owner, reader in ((0, 1), (1, 0)):
        lone = sorted(set(ids_in(folders[owner])) - set(ids_in(folders[reader])))[:40]
        assert len(lone) == 40
        held = b"".join(
            path.read_bytes() for path in folders[reader].rglob("*") if path.is_file() and path.suffix != ".csv"
        )
        assert aligned[reader]["id"].encode() in held
        for identifier in lone:
            text = identifier.encode()
            digests = [hashlib.new(name, text).digest() for name in ("md5", "sha1", "sha256", "sha512")]
            for trace in (text, base64.b64encode(text), text.hex().encode(), id_hash((identifier,))[:16], *digests):
                assert trace not in held


def test_no_id_stands_in_an_own_log_or_database_either(
    aligning: tuple[Any, Any], aligned: list[dict[str, Any]]
) -> None:
    for party in aligning:
        held = b"".join(
            path.read_bytes() for path in party.folder.rglob("*") if path.is_file() and path.suffix != ".csv"
        )
        assert CANARY.encode() not in held
        assert b"c-0001" not in held


@pytest.mark.parametrize("by", ["digest", "job"])
def test_a_training_takes_the_common_rows_in_the_common_order(
    aligning: tuple[Any, Any], aligned: list[dict[str, Any]], by: str
) -> None:
    name = aligned[0]["result_digest"] if by == "digest" else aligned[0]["id"]
    ended = run(aligning, training(name))
    assert [job["state"] for job in ended] == ["done", "done"], [job["error"] for job in ended]
    assert [job["plan"]["rows"] for job in ended] == [COMMON, COMMON]
    assert ended[0]["metrics"]["auc"] > 0.95


def test_a_training_on_the_same_files_without_an_alignment_is_refused(aligning: tuple[Any, Any]) -> None:
    ended = run(aligning, training(""))
    assert {job["error"]["code"] for job in ended} == {"rows_differ"}


def test_a_training_that_names_no_alignment_of_this_party_is_not_sent(aligning: tuple[Any, Any]) -> None:
    answer = aligning[0].call("POST", "/v1/jobs", json={"spec": training("ab" * 32)})
    assert answer.json()["code"] == "unknown_alignment"


def test_a_training_on_another_data_set_than_was_aligned_is_not_sent(
    aligning: tuple[Any, Any], aligned: list[dict[str, Any]]
) -> None:
    spec = training(aligned[0]["result_digest"], data="others")
    answer = aligning[0].call("POST", "/v1/jobs", json={"spec": spec}).json()
    assert answer["code"] == "alignment_unfit"
    assert "'people'" in answer["detail"]


def test_a_file_that_has_changed_since_is_told_before_anything_runs(
    aligning: tuple[Any, Any], aligned: list[dict[str, Any]]
) -> None:
    file = aligning[1].folder / "people.csv"
    before = file.read_text("utf-8")
    file.write_text(before + "c-9999,1.0,2.0\n", "utf-8")
    try:
        ended = run(aligning, training(aligned[0]["result_digest"]))
    finally:
        file.write_text(before, "utf-8")
    assert {job["error"]["code"] for job in ended} == {"alignment_unfit"}
    assert ended[0]["error"]["side"] == OTHER
    assert "align again" in ended[0]["error"]["message"]
    assert "people" not in ended[0]["error"]["message"]
    assert [job["started_at"] for job in ended] == [None, None]


def test_only_the_size_is_told_where_the_parties_agreed_so(aligning: tuple[Any, Any]) -> None:
    ended = run(aligning, alignment(data="again", telco="again", rules='reveal = "size-only"'))
    for job in ended:
        assert job["state"] == "done", job["error"]
        assert job["metrics"]["common_ids"] == COMMON
        assert job["result_digest"] == ""
        assert load(Path(job["model_path"]).read_bytes())["rows"].tolist() == []


def test_ids_of_another_type_are_refused_by_their_owner_and_the_peer_learns_no_column(
    aligning: tuple[Any, Any],
) -> None:
    bank, telco = run(aligning, alignment(data="numbered", rules='types = ["integer"]'))
    assert bank["error"]["code"] == "invalid_data"
    assert bank["error"]["message"].endswith("telco's table does not fit the job; its operator sees where")
    assert telco["error"]["code"] == "id_type"
    assert "people.csv: the id column 'id' is not a plain whole number in data row 1" in telco["error"]["message"]


def test_a_job_that_no_grant_covers_waits_for_the_operator_and_a_grant_names_kind_and_id_column(
    aligning: tuple[Any, Any],
) -> None:
    bank, telco = aligning
    bank.granting = []
    try:
        spec = alignment(data="lifetime", telco="lifetime", purpose="another one")
        job = bank.submit(spec)["id"]
        waiting = telco.wait(job, lambda found: found["waits_for"] == "approval")
        assert waiting["state"] == "proposed"
        summary = telco.call("GET", f"/v1/jobs/{job}/summary").text
        assert "compared by 'id'" in summary
        assert telco.call("POST", f"/v1/jobs/{job}/approve", json={}).status_code == 200
        assert [party.over(job)["state"] for party in aligning] == ["done", "done"]
        (grant,) = telco.grant(spec).json()["grants"]
        assert (grant["protocol"], grant["scheme"], grant["columns"]) == ("alignment", "common_ids", ["id"])
        assert grant["maximum_opened_values"] == 1_000_001
    finally:
        bank.granting = [telco]


def test_a_peer_compares_ids_with_a_data_set_so_often_a_day_and_counters_outlive_the_server(
    aligning: tuple[Any, Any],
) -> None:
    bank, telco = aligning
    spec = alignment(data="lifetime", telco="lifetime")
    assert [job["state"] for job in run(aligning, spec)] == ["done", "done"]
    telco.stop()
    telco.start()
    refused = bank.call("POST", "/v1/jobs", json={"spec": spec}).json()
    assert refused["code"] == "policy_refused"
    assert "acceptance.alignments_per_day: telco has compared ids with 'lifetime' 2 times" in refused["detail"]


def test_ids_that_have_hardly_changed_are_not_compared_again(aligning: tuple[Any, Any]) -> None:
    bank, telco = aligning
    file = telco.folder / "people.csv"
    before = file.read_text("utf-8")
    file.write_text(before + "c-9998,1.0,2.0\n", "utf-8")
    try:
        job = bank.submit(alignment(data="others", telco="again"))["id"]
        ended = [party.over(job) for party in aligning]
    finally:
        file.write_text(before, "utf-8")
    assert {each["error"]["code"] for each in ended} == {"policy_refused"}
    assert "acceptance.minimum_changed_ids" in ended[0]["error"]["message"]
    assert "about 1, fewer than 50" in ended[1]["error"]["message"]
    assert "about 1" not in ended[0]["error"]["message"]


def test_a_killed_worker_fails_the_job_and_leaves_nothing_behind(aligning: tuple[Any, Any]) -> None:
    bank, telco = aligning
    for server in aligning:
        write(server.folder / "many.csv", "id", [f"m-{row}" for row in range(60_000)])
    job = bank.submit(alignment(data="many", telco="many"))["id"]
    running = telco.wait(job, lambda found: found["step"] > 0 and found["worker_pid"] is not None)
    children = children_of(running["worker_pid"])
    assert children
    os.kill(running["worker_pid"], signal.SIGKILL)
    ended = [party.over(job) for party in aligning]
    assert {each["error"]["code"] for each in ended} == {"worker_vanished"}
    for server, each in zip(aligning, ended, strict=True):
        assert not (server.folder / "models" / job).exists()
        assert each["result_digest"] in {None, ""}
    wait_until_gone(children)


def children_of(pid: int) -> list[int]:
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() and not _is_zombie(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
