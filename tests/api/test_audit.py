"""The audit logs of two real servers: what they hold after a job, and what is found that somebody has changed."""

import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from faulty_line import FEATURE, LABEL
from logs_of_servers import Json, Two, entries, export, head, problems, settle, trained

from parties.storage.engine import Database
from parties.storage.passed import AUDIT_LOG
from parties.trust.budget import reveals
from parties.trust.leaves import Event, decode
from parties.trust.notes import Proof
from parties.wire.transport import WITNESS_ROUTE

CHANGES = 120
"""Single bits of both bundles that are changed, one at a time."""
UNSIGNED = {"README.txt", "verifier.py"}
MANIFEST = {"job", "name", "purpose", "party", "spec_digest", "data", "columns", "label", "model_digest"}
MANIFEST |= {"parties", "result_digest", "measures_digest", "finished_at"}
"""What is told of a model: no measure, and no value of a table."""


@pytest.fixture
def two(
    tmp_path: Path,
    new_party: Callable[..., Any],
    some_ports: Callable[[int], list[int]],
    files: tuple[Path, Path],
) -> Iterator[Two]:
    """Two servers, each with only its own file."""
    ports = some_ports(4)
    urls = {LABEL: f"https://127.0.0.1:{ports[1]}", FEATURE: f"https://127.0.0.1:{ports[3]}"}
    with ExitStack() as stack:
        label = new_party(tmp_path / LABEL, LABEL, {FEATURE: urls[FEATURE]}, {"patients": str(files[0])}, ports[:2])
        feature = new_party(tmp_path / FEATURE, FEATURE, {LABEL: urls[LABEL]}, {"clinic": str(files[1])}, ports[2:])
        label.granting = [feature]
        for party in (label, feature):
            stack.callback(party.close)
            party.start()
        yield {LABEL: label, FEATURE: feature}


def spent(party: Any) -> Counter[tuple[str, str]]:
    """Messages by job and kind, as the budgets count them."""
    database = Database(party.folder)
    with database.reading() as connection:
        rows = connection.exec_driver_sql("SELECT job, message, spent FROM budgets WHERE spent > 0").all()
    database.close()
    return Counter({(job, kind): count for job, kind, count in rows})


def revealed(party: Any) -> Counter[tuple[str, str]]:
    """The same by the leaves of the audit log."""
    database = Database(party.folder)
    with database.reading() as connection:
        leaves = [decode(leaf) for leaf in AUDIT_LOG.leaves(connection)]
    database.close()
    headers = [msgspec.msgpack.decode(leaf.header) for leaf in leaves if leaf.event is Event.SENT]
    return Counter((each["job"], each["kind"]) for each in headers if each["part"] == 1 and reveals(each["kind"]))


def test_after_a_job_both_logs_verify_and_a_changed_bit_anywhere_is_found(
    two: Two, job_spec: Callable[..., str], tmp_path: Path
) -> None:
    job = trained(two, job_spec(epochs="2"))
    settle(two)
    folders = export(two, tmp_path / "bundles")
    command = [sys.executable, str(folders[0] / "verifier.py"), *map(str, folders)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    assert "Verified" in run.stdout

    for party in two.values():
        (ended,) = (entry for entry in entries(party) if entry["event"] == "job_ended")
        manifest = (party.folder / "models" / job / "manifest.json").read_bytes()
        assert ended["detail"] == {"state": "done", "manifest": hashlib.sha256(manifest).hexdigest()}
        assert party.job(job)["manifest_digest"] == ended["detail"]["manifest"]
        (agreed,) = (entry for entry in entries(party) if entry["event"] == "job_agreed")
        assert agreed["detail"] == {"specification": party.job(job)["spec_digest"]}
    for folder in folders:
        assert sorted(json.loads((folder / "contracts" / f"{job}.signatures").read_text())) == sorted(two)
        assert set(json.loads((folder / "models" / f"{job}.json").read_text())) == MANIFEST

    draw = random.Random(0)
    found = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    changed = [path for path in found if path.name not in UNSIGNED and path.stat().st_size]
    for _ in range(CHANGES):
        path = draw.choice(changed)
        data = path.read_bytes()
        place = draw.randrange(8 * len(data))
        broken = bytearray(data)
        broken[place // 8] ^= 1 << place % 8
        path.write_bytes(broken)
        assert problems(folders), (path, place)
        path.write_bytes(data)
    assert not problems(folders)


def test_the_counted_traffic_and_the_leaves_are_the_same(two: Two, job_spec: Callable[..., str]) -> None:
    job = trained(two, job_spec(epochs="1"))
    settle(two)
    for party in two.values():
        found: dict[tuple[str, str], int] = {}
        for entry in entries(party):
            if entry["event"] in {"sent", "received"} and entry["envelope"]["part"] == entry["envelope"]["parts"]:
                line = (entry["event"], entry["envelope"]["kind"])
                found[line] = found.get(line, 0) + 1
        traffic = {(line["direction"], line["kind"]): line["messages"] for line in party.job(job)["traffic"]}
        assert found == traffic


def test_a_proof_carries_its_leaf_and_the_head_it_stands_under(two: Two, job_spec: Callable[..., str]) -> None:
    trained(two, job_spec(epochs="1"))
    text = two[LABEL].call("GET", "/v1/audit/proof/0").text
    proof = Proof.parse(text.encode())
    assert (proof.index, decode(proof.extra).event) == (0, Event.JOB_APPROVED)  # by the operator who submitted it
    missing = two[LABEL].call("GET", "/v1/audit/proof/99999")
    assert (missing.status_code, missing.json()["code"]) == (404, "unknown_leaf")


def test_a_party_that_writes_its_log_anew_is_found_by_the_log_of_its_peer(
    two: Two, job_spec: Callable[..., str], tmp_path: Path
) -> None:
    trained(two, job_spec(epochs="1"))
    settle(two)
    two[LABEL].stop()
    database = Database(two[LABEL].folder)
    with database.reading() as connection:
        leaves = list(AUDIT_LOG.leaves(connection))
    with database.writing() as connection:
        for table in ("audit_leaves", "audit_subtrees", "audit_heads", "receipts"):
            connection.exec_driver_sql(f"DELETE FROM {table}")  # noqa: S608 - names of this test
        last = max(index for index, leaf in enumerate(leaves) if decode(leaf).event is Event.SENT)
        AUDIT_LOG.append(connection, [*leaves[:last], *leaves[last + 1 :]])
    database.close()
    two[LABEL].start()
    folders = export(two, tmp_path / "bundles")
    assert not problems(folders[:1])  # its own bundle does not show it
    found = problems(folders)
    assert any("does not extend the head" in text and LABEL in text.partition(":")[0] for text in found), found


@pytest.mark.parametrize("restored", [LABEL, FEATURE])
def test_a_party_that_was_put_back_from_an_older_copy_begins_no_new_job(
    two: Two, job_spec: Callable[..., str], tmp_path: Path, restored: str
) -> None:
    trained(two, job_spec(epochs="1"))
    two[restored].stop()
    shutil.copytree(two[restored].folder, tmp_path / "copy")
    two[restored].start()
    trained(two, job_spec(epochs="1"))
    settle(two)
    two[restored].stop()
    shutil.rmtree(two[restored].folder)
    shutil.move(tmp_path / "copy", two[restored].folder)
    two[restored].start()
    answer = two[LABEL].call("POST", "/v1/jobs", json={"spec": job_spec(epochs="1")})
    if restored == LABEL:
        assert (answer.status_code, answer.json()["code"]) == (409, "audit_log_contradicted")
    else:
        job = answer.json()["id"]
        assert two[LABEL].over(job)["error"]["code"] == "audit_log_contradicted"
    (told,) = (entry for entry in entries(two[restored]) if entry["event"] == "restored")
    assert told["detail"]["signed_elsewhere"] > told["detail"]["leaves"]


@pytest.mark.parametrize("killed", [LABEL, FEATURE])
def test_both_logs_verify_after_a_server_was_killed_in_the_middle_of_a_training(
    two: Two, job_spec: Callable[..., str], tmp_path: Path, killed: str
) -> None:
    job = two[LABEL].submit(job_spec(epochs="3000"))["id"]
    for party in two.values():
        party.wait(job, lambda found: bool(found["step"]))
    two[killed].stop(signal.SIGKILL)
    two[killed].start()
    for party in two.values():
        party.wait(job, lambda found: found["attempt"] > 1 and found["worker_pid"] and not found["waits_for"])
    two[killed].call("POST", f"/v1/jobs/{job}/cancel")
    assert [party.over(job)["state"] for party in two.values()] == ["cancelled", "cancelled"]
    for party in two.values():
        assert spent(party) == revealed(party)
    trained(two, job_spec(epochs="1"))
    settle(two)
    assert not problems(export(two, tmp_path / "bundles"))


def test_a_witness_answers_for_the_log_of_the_party_that_asks_alone(two: Two) -> None:
    own, other = (head(two[name])["checkpoint"] for name in (LABEL, FEATURE))
    with httpx.Client(verify=two[FEATURE].tls(LABEL), trust_env=False) as client:

        def asked(request: str) -> httpx.Response:
            return client.post(two[FEATURE].peer + WITNESS_ROUTE, content=request.encode())

        assert asked(f"old 0\n\n{own}").status_code == 200
        assert asked(f"old 0\n\n{other}").status_code == 404
        assert asked("nothing").status_code == 400
        stale = asked(f"old {10**6}\n\n{own}")
        assert stale.status_code == 400  # no head extends a larger one
        assert json.loads(stale.content)["code"] == "malformed_note"


def test_the_command_line_shows_exports_proves_and_verifies(
    two: Two, job_spec: Callable[..., str], tmp_path: Path
) -> None:
    job = trained(two, job_spec(epochs="1"))
    settle(two)

    def vfl(*arguments: str, code: int = 0) -> Json:
        command = [sys.executable, "-m", "vfl", "audit", *arguments, "--format", "json"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == code, run.stdout + run.stderr
        found: Json = json.loads(run.stdout)
        return found

    at = {name: ("--party", str(party.folder)) for name, party in two.items()}
    shown = vfl("show", "--entries", "3", *at[LABEL])["data"]
    assert [entry["index"] for entry in shown["entries"]] == list(range(shown["head"]["size"]))[-3:]
    assert Proof.parse(vfl("proof", "2", *at[LABEL])["data"]["proof"].encode()).index == 2
    folders = {name: tmp_path / f"{name}-bundle" for name in two}
    for name, folder in folders.items():
        vfl("export", str(folder), *at[name])
    assert vfl("export", str(folders[LABEL]), *at[LABEL], code=4)["error_code"] == "file_unwritable"
    verified = vfl("verify", *map(str, folders.values()))["data"]
    assert verified["verified"]
    assert {each["party"] for each in verified["bundles"]} == set(two)
    nowhere = vfl("verify", str(tmp_path / "nowhere"), code=4)
    assert nowhere["error_code"] == "bundle_not_found"
    leaves = folders[FEATURE] / "leaves.bin"
    changed = leaves.read_bytes()
    leaves.write_bytes(changed[:-1] + bytes([changed[-1] ^ 1]))
    problem = vfl("verify", *map(str, folders.values()), code=1)
    assert problem["error_code"] == "audit_not_verified"
    assert FEATURE in problem["message"]
    manifest = two[LABEL].folder / "models" / job / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b"model_digest", b"model_digesu"))  # one bit
    vfl("export", str(tmp_path / "again"), *at[LABEL])
    problem = vfl("verify", str(tmp_path / "again"), code=1)
    assert f"models/{job}.json is not the manifest that was logged when the job ended" in problem["message"]
    assert f"changed at {LABEL} after that; the log is whole" in problem["message"]
