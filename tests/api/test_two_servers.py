"""Two server processes run jobs between them over HTTP on loopback, and survive what goes wrong."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy

from vfl.models.preparation import Preparation

Spec = Callable[..., str]
Parties = tuple[Any, Any]

LONG = {"epochs": "3000"}
KEPT = ("manifest", "result")


def trains(job: dict[str, Any]) -> bool:
    return job["state"] == "running" and job["epoch"] > 0 and job["worker_pid"] is not None


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def run_next_job(parties: Parties, job_spec: Spec) -> None:
    """The servers still answer, and run the next job to its end."""
    job = parties[0].submit(job_spec(epochs="1"))
    assert [party.over(job["id"])["state"] for party in parties] == ["done", "done"]


@pytest.fixture(scope="module")
def done(parties: Parties, job_spec: Spec) -> list[dict[str, Any]]:
    """One finished job as each side shows it."""
    job = parties[0].submit(job_spec())
    return [party.over(job["id"]) for party in parties]


def test_a_job_is_done_on_both_sides_under_one_id_and_one_digest(done: list[dict[str, Any]]) -> None:
    label, feature = done
    assert [job["state"] for job in done] == ["done", "done"], [job["error"] for job in done]
    assert (label["id"], label["spec_digest"]) == (feature["id"], feature["spec_digest"])
    assert (label["role"], feature["role"]) == ("label", "feature")
    assert label["metrics"]["auc"] > 0.9
    assert feature["metrics"] == {}


def test_a_finished_job_tells_steps_seconds_and_relaxed_limits(done: list[dict[str, Any]]) -> None:
    for job in done:
        assert job["step"] == job["steps"] == job["plan"]["steps"]
        assert job["epoch"] == job["epochs"] == 3
        assert 0 < job["seconds"]["training"] <= job["seconds"]["total"]
        assert any(line.startswith("minimum_rows 1000 -> 100") for line in job["relaxed_limits"])
        assert job["worker_pid"] is None


def test_what_one_side_sent_the_other_received(done: list[dict[str, Any]]) -> None:
    def counted(job: dict[str, Any], direction: str) -> dict[str, tuple[int, int]]:
        lines = [line for line in job["traffic"] if line["direction"] == direction]
        return {line["kind"]: (line["messages"], line["payload_bytes"]) for line in lines}

    label, feature = done
    assert counted(feature, "sent") == counted(label, "received")
    assert counted(label, "sent") == counted(feature, "received")
    assert counted(label, "received")["Embedding"][0] == label["steps"]


def test_each_side_keeps_its_own_half_with_manifest_and_epochs(done: list[dict[str, Any]]) -> None:
    for job in done:
        model = Path(job["model_path"])
        assert safetensors.numpy.load(model.read_bytes())
        assert json.loads((model.parent / "manifest.json").read_text())["model_digest"] == job["model_digest"]
        assert sorted(path.name for path in (model.parent / "epochs").iterdir()) == [
            f"epoch-000{epoch}.safetensors" for epoch in (1, 2, 3)
        ]
        assert model.stat().st_mode & 0o777 == 0o600
        assert not list(model.parent.rglob(".*"))


def test_each_side_shows_what_was_agreed_and_names_its_own_columns_beside_its_weights(
    done: list[dict[str, Any]],
) -> None:
    for job, own, label, foreign in zip(done, ("e", "x"), ("y", ""), ("x", "e"), strict=True):
        assert job["specification"]["data"][job["party"]]["dataset"] in {"patients", "clinic"}
        model = Path(job["model_path"])
        manifest = json.loads((model.parent / "manifest.json").read_text())
        with safetensors.safe_open(model, "numpy") as tensors:
            told = tensors.metadata()
            columns = json.loads(told["columns"])
            preparation = Preparation.decode(tensors.get_tensor("preparation").tobytes())
            assert list(preparation.names) == columns
        assert columns == manifest["columns"] == job["specification"]["data"][job["party"]]["columns"]
        assert {name[0] for name in columns} == {own}
        assert (told.get("label", ""), manifest["label"]) == (label, label)
        assert f'"{foreign}1"' not in (model.parent / "manifest.json").read_text()
    assert done[0]["specification"] == done[1]["specification"]


def test_events_tell_the_job_in_order(parties: Parties, done: list[dict[str, Any]]) -> None:
    answer = parties[0].call("GET", f"/v1/jobs/{done[0]['id']}/events").json()
    kinds = [event["kind"] for event in answer["events"]]
    assert kinds[:2] == ["accepted", "started"]
    assert kinds[-1] == "done"
    assert kinds.count("epoch") == 3
    assert [event["number"] for event in answer["events"]] == list(range(1, answer["last"] + 1))


def test_two_runs_with_fixed_seeds_give_equal_models(
    parties: Parties, job_spec: Spec, done: list[dict[str, Any]]
) -> None:
    job = parties[0].submit(job_spec())
    again = [party.over(job["id"]) for party in parties]
    assert again[0]["id"] != done[0]["id"]
    assert [found["model_digest"] for found in again] == [found["model_digest"] for found in done]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_neither_server_process_has_loaded_torch_or_an_encryption_library(
    parties: Parties, done: list[dict[str, Any]]
) -> None:
    for party in parties:
        party.process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + 30
        while not (party.folder / "maps").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        loaded = (party.folder / "maps").read_text()
        assert "python" in loaded
        assert not re.search(r"torch|tenseal|sealapi|gmpy2", loaded)


OPEN_OTHERS = """
import os, subprocess, sys

def opened(process):
    for name in ("mem", "environ", *(f"fd/{number}" for number in range(64))):
        try:
            os.close(os.open(f"/proc/{process}/{name}", os.O_RDONLY | os.O_NONBLOCK))
        except OSError:
            continue
        print(process, name)

unprotected = subprocess.Popen(["sleep", "60"])
opened(unprotected.pid)
unprotected.kill()
print("-")
for process in sys.argv[1:]:
    opened(process)
"""


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux: /proc")
def test_another_process_of_the_same_user_opens_neither_memory_nor_files_of_servers_and_workers(
    parties: Parties, job_spec: Spec, ordinary: list[str]
) -> None:
    """The attack opens both of a process that does nothing against it, and nothing of ours."""
    job = parties[0].submit(job_spec(**LONG))
    pids = [party.wait(job["id"], trains)["worker_pid"] for party in parties]
    pids += [party.process.pid for party in parties]
    attack = subprocess.run(
        [*ordinary, "-c", OPEN_OTHERS, *map(str, pids)], capture_output=True, text=True, timeout=60, check=True
    )
    parties[0].call("POST", f"/v1/jobs/{job['id']}/cancel")
    for party in parties:
        party.over(job["id"])
    unprotected, ours = attack.stdout.split("-\n")
    if not {"mem", "fd/1"} <= {line.split()[1] for line in unprotected.splitlines()}:
        pytest.skip("this system shows no process's memory to another one: there is nothing to protect")
    assert ours == ""


def test_importing_the_server_loads_no_role() -> None:
    code = "import sys, api.server; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = found.stdout.split()
    assert "parties.jobs.supervisor" in loaded
    assert not {"torch", "tenseal", "phe", "crypto.ckks", "vfl.protocols", "parties.worker.main"} & set(loaded)


def test_a_column_the_feature_party_lacks_ends_the_job_on_both_sides(parties: Parties, job_spec: Spec) -> None:
    label, feature = parties
    job = label.submit(job_spec().replace('"x19"', '"x91"'))
    told, own = label.over(job["id"])["error"], feature.over(job["id"])["error"]
    assert (told["code"], own["code"]) == ("invalid_data", "unknown_column")
    assert "x" not in told["message"].replace("sees where", "")
    assert told["side"] == own["side"] == "feature-party"
    assert "Did you mean 'x9'?" in own["fix"]
    # The operator who can correct it is the one that proposed.
    assert own["fix"].endswith("label-party wrote the specification: tell its operator which name is right.")
    assert "what the specification asks of feature-party" in told["fix"]
    assert "x9" not in told["fix"]


def test_a_column_the_label_party_lacks_is_refused_at_submission(parties: Parties, job_spec: Spec) -> None:
    answer = parties[0].call("POST", "/v1/jobs", json={"spec": job_spec().replace('"e9"', '"e99"')})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "unknown_column"
    assert "'e9'" in answer.json()["hint"]


def test_rows_in_another_order_end_the_job_with_a_name_and_no_model(parties: Parties, job_spec: Spec) -> None:
    job = parties[0].submit(job_spec().replace('"clinic"', '"reordered"'))
    for party in parties:
        ended = party.over(job["id"])
        assert (ended["state"], ended["error"]["code"]) == ("failed", "rows_differ")
        assert not (party.folder / "models" / job["id"]).exists()


def test_ids_written_in_another_way_are_told_to_each_side_by_its_own_file_alone(
    parties: Parties, job_spec: Spec
) -> None:
    label, feature = parties
    job = label.submit(job_spec().replace('"clinic"', '"capitals"'))
    told, own = label.over(job["id"])["error"], feature.over(job["id"])["error"]
    assert told["code"] == own["code"] == "rows_differ"
    assert "569 of 569 ids with small letters" in told["fix"]
    assert "569 of 569 ids with capital letters" in own["fix"]
    assert "569" not in told["message"] + own["message"]
    assert "capital letters" not in json.dumps(label.job(job["id"]))
    assert "small letters" not in json.dumps(feature.job(job["id"]))


def test_the_peers_policy_refuses_by_its_rule_and_tells_its_own_operator_why(parties: Parties, job_spec: Spec) -> None:
    job = parties[0].submit(job_spec().replace('"clinic"', '"forbidden"'))
    told, own = (party.over(job["id"])["error"] for party in parties)
    assert told["code"] == own["code"] == "policy_refused"
    assert told["side"] == own["side"] == "feature-party"
    assert told["message"] == "feature-party refused the job: feature-party refuses by acceptance.datasets"
    assert "'forbidden' is not in it" in own["message"]


def test_only_the_label_party_proposes(parties: Parties, job_spec: Spec) -> None:
    answer = parties[1].call("POST", "/v1/jobs", json={"spec": job_spec()})
    assert (answer.status_code, answer.json()["code"]) == (409, "not_the_coordinator")


def test_a_cancelled_job_ends_on_both_sides(parties: Parties, job_spec: Spec) -> None:
    job = parties[0].submit(job_spec(**LONG))
    pids = [party.wait(job["id"], trains)["worker_pid"] for party in parties]
    cancelled = parties[1].call("POST", f"/v1/jobs/{job['id']}/cancel").json()
    assert cancelled["state"] == "cancelled"
    ended = parties[0].over(job["id"])
    assert (ended["state"], ended["error"]["side"]) == ("cancelled", "feature-party")
    assert parties[1].call("POST", f"/v1/jobs/{job['id']}/cancel").json()["error"] == cancelled["error"]
    wait_until(lambda: all(map(is_gone, pids)))


def test_a_diverging_run_is_named_to_the_label_party_alone(parties: Parties, job_spec: Spec) -> None:
    text = job_spec(epochs="2", task='"regression"') + "[train.optimiser]\nrate = 1e6\n"
    job = parties[0].submit(text)
    label, feature = (party.over(job["id"]) for party in parties)
    assert (label["state"], feature["state"]) == ("done", "done")
    assert "diverged" in [notice["code"] for notice in label["notices"]]
    assert "diverged" not in [notice["code"] for notice in feature["notices"]]


def test_a_job_past_its_deadline_fails_on_both_sides(parties: Parties, job_spec: Spec) -> None:
    job = parties[0].submit(job_spec(**LONG).replace("seed = 0", "seed = 0\ndeadline_seconds = 1"))
    assert {party.over(job["id"])["error"]["code"] for party in parties} == {"deadline_passed"}


def test_a_server_that_dies_takes_its_workers_along_and_the_job_waits_for_it(parties: Parties, job_spec: Spec) -> None:
    label, feature = parties
    job = label.submit(job_spec(**LONG))["id"]
    pids = [party.wait(job, trains)["worker_pid"] for party in parties]
    feature.stop(signal.SIGKILL)
    wait_until(lambda: is_gone(pids[1]))
    try:
        parked = label.wait(job, lambda found: found["waits_for"])
        assert (parked["state"], parked["waits_for"]) == ("running", "feature-party to be back")
        assert parked["worker_pid"] is None
        wait_until(lambda: is_gone(pids[0]))
        answer = label.call("POST", "/v1/jobs", json={"spec": job_spec()})
        assert (answer.status_code, answer.json()["code"]) == (502, "peer_unreachable")
    finally:
        feature.start()
    again = [party.wait(job, lambda found: found["worker_pid"] and not found["waits_for"]) for party in parties]
    assert all(found["attempt"] > 1 for found in again)
    feature.call("POST", f"/v1/jobs/{job}/cancel")
    assert {party.over(job)["state"] for party in parties} == {"cancelled"}
    run_next_job(parties, job_spec)


def wait_until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_looks_wrong_in_a_table_is_told_to_its_owner_alone(parties: Parties, job_spec: Spec) -> None:
    label, feature = parties
    spec = job_spec(epochs="1").replace('"patients"', '"faulty_patients"').replace('"clinic"', '"faulty_clinic"')
    submitted = label.submit(spec)
    told = {notice["code"]: notice["text"] for notice in submitted["notices"]}
    assert "'e3' (7)" in told["constant_column"]
    assert "569 of 569 ids with a space at the start or the end" in told["odd_ids"]
    theirs = feature.wait(submitted["id"], lambda job: bool(job["notices"]))
    label.call("POST", f"/v1/jobs/{submitted['id']}/cancel")
    ours = label.over(submitted["id"])
    told = {notice["code"]: notice["text"] for notice in theirs["notices"]}
    assert "-999 in 57 of 569 rows" in told["suspicious_value"]
    assert submitted["notices"] == ours["notices"][: len(submitted["notices"])]
    assert "faulty_clinic.csv" not in json.dumps(ours)
    assert "faulty_patients.csv" not in json.dumps(theirs)


def test_what_a_label_was_taken_for_is_stored_with_the_job_and_told_to_nobody_else(
    parties: Parties, job_spec: Spec
) -> None:
    path = parties[0].folder / "patients.csv"
    written = path.read_text()
    header, *rows = written.splitlines()
    try:
        # 0.0 becomes 1 and 1.0 becomes 2.
        path.write_text("\n".join([header, *(f"{row[:-3]}{int(row[-3]) + 1}" for row in rows)]) + "\n")
        job = parties[0].submit(job_spec(epochs="1"))
        label, feature = (party.over(job["id"]) for party in parties)
    finally:
        path.write_text(written)
    assert label["state"] == "done"
    for told in (job, label):
        assert told["classes"] == ["1", "2"]
        assert ("guess", "positive_value") in [(notice["kind"], notice["code"]) for notice in told["notices"]]
    assert feature["classes"] == []
    assert "positive_value" not in {notice["code"] for notice in feature["notices"]}
    kept = {name: json.loads((parties[0].folder / "models" / job["id"] / f"{name}.json").read_text()) for name in KEPT}
    assert kept["result"]["classes"] == ["1", "2"]
    assert "classes" not in kept["manifest"]  # which auditors read
