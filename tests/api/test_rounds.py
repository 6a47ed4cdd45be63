"""An aggregator and three clients on real servers: clients may leave, stay away and come back, and the job goes on."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors
from identities import acquaint

from api.cli.main import main

AGGREGATOR, CLIENTS = "aggregator", ("client-a", "client-b", "client-c")
TEST_ROWS, CLIENT_ROWS = 150, 120
MANY = 100_000

Json = dict[str, Any]
Parties = dict[str, Any]


def spec(
    rounds: int, deadline_seconds: float = 60.0, min_clients: int = 2, quorum: float = 0.6, first_model: str = ""
) -> str:
    data = "".join(f'[data.{client}]\ndataset = "rows"\n' for client in CLIENTS)
    return f"""\
[job]
name = "digits"
purpose = "reading digits"
protocol = "rounds"
task = "multiclass"
classes = 10
seed = 0
[roster]
aggregator = "{AGGREGATOR}"
clients = {list(CLIENTS)}
[data.{AGGREGATOR}]
test = "test"
{data}
[model]
network = "mlp"
hidden = [16]
input_shape = [64]
input_range = [0.0, 16.0]
label = "digit"
first_model = "{first_model}"
[train]
batch_rows = 20
optimiser = {{ rate = 0.3 }}
[rounds]
rounds = {rounds}
min_clients = {min_clients}
quorum = {quorum}
deadline_seconds = {deadline_seconds}
""".replace("'", '"')


def write_digits(path: Path, first: int, rows: int) -> None:
    from sklearn.datasets import load_digits

    data = load_digits()
    lines = ["id," + ",".join(f"p{pixel}" for pixel in range(64)) + ",digit"]
    lines += [
        ",".join([f"r{row}", *(f"{pixel:g}" for pixel in data.data[row]), str(data.target[row])])
        for row in range(first, first + rows)
    ]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory, new_party: Callable[..., Any]) -> Iterator[Parties]:
    """By name, running; every party has a slice of digits."""
    root = tmp_path_factory.mktemp("rounds")
    aggregator = new_party(root / AGGREGATOR, AGGREGATOR, {}, {"test": "test.csv"})
    made = {AGGREGATOR: aggregator}
    write_digits(aggregator.folder / "test.csv", 0, TEST_ROWS)
    for number, client in enumerate(CLIENTS):
        made[client] = new_party(root / client, client, {AGGREGATOR: aggregator.peer}, {"rows": "rows.csv"})
        write_digits(made[client].folder / "rows.csv", TEST_ROWS + number * CLIENT_ROWS, CLIENT_ROWS)
    settings = (aggregator.folder / "party.toml").read_text().replace("\npeers = []", f"\npeers = {list(CLIENTS)}", 1)
    acquaint(aggregator.folder, {client: made[client].peer.removeprefix("https://") for client in CLIENTS})
    (aggregator.folder / "party.toml").write_text(settings)
    try:
        for party in made.values():
            party.start()
        aggregator.granting = [made[client] for client in CLIENTS]
        yield made
    finally:
        for party in made.values():
            party.close()


def events(party: Any, job: str, kind: str) -> list[Json]:
    answer = party.call("GET", f"/v1/jobs/{job}/events").json()
    return [event for event in answer["events"] if event["kind"] == kind]


def rounds_after(aggregator: Any, job: str, number: int) -> list[Json]:
    return [e["data"]["measures"] for e in events(aggregator, job, "round") if e["data"]["round"] > number]


def wait_for_replies(aggregator: Any, job: str, replies: float) -> None:
    """Until a round that is still to come had so many replies."""
    now = aggregator.job(job)["epoch"]
    aggregator.wait(
        job, lambda _found: replies in [measures["replies"] for measures in rounds_after(aggregator, job, now)]
    )


def wait_for_return(aggregator: Any, job: str, client: str, times: int) -> None:
    """Until it has joined so often, and replies like the other one whose worker is not stopped."""

    def returned(_found: Json) -> bool:
        return [str(event["data"]["peer"]) for event in events(aggregator, job, "joined")].count(client) == times

    aggregator.wait(job, returned)
    wait_for_replies(aggregator, job, 2.0)


def cancel(party: Any, job: str) -> Json:
    answer: Json = party.call("POST", f"/v1/jobs/{job}/cancel").json()
    return answer


@pytest.fixture(scope="module")
def going(parties: Parties, done: dict[str, Json]) -> Iterator[str]:
    """A job that starts from a registered model and would go on for hours.

    After some rounds of all three the worker of client-a is stopped: each round then lasts until its deadline, and
    leaves the processors to the tests.
    """
    aggregator = parties[AGGREGATOR]
    job: str = aggregator.submit(
        spec(MANY, deadline_seconds=5.0, min_clients=1, quorum=0.3, first_model=done[AGGREGATOR]["model_digest"])
    )["id"]
    wait_for_replies(aggregator, job, 3.0)
    worker = parties["client-a"].job(job)["worker_pid"]
    os.kill(worker, signal.SIGSTOP)
    yield job
    cancel(aggregator, job)


@pytest.fixture(scope="module")
def done(parties: Parties) -> dict[str, Json]:
    job = parties[AGGREGATOR].submit(spec(rounds=4))["id"]
    return {name: party.over(job) for name, party in parties.items()}


def test_four_parties_train_one_model_to_the_end(done: dict[str, Json]) -> None:
    assert {job["state"] for job in done.values()} == {"done"}, [job["error"] for job in done.values()]
    assert len({job["model_digest"] for job in done.values()}) == 1
    roles = {name: job["role"] for name, job in done.items()}
    assert roles == {AGGREGATOR: "aggregator", **dict.fromkeys(CLIENTS, "client")}


def test_each_party_is_told_what_looks_wrong_in_its_own_table(done: dict[str, Json]) -> None:
    for name, file in {AGGREGATOR: "test.csv", **dict.fromkeys(CLIENTS, "rows.csv")}.items():
        (told,) = (notice for notice in done[name]["notices"] if notice["code"] == "constant_column")
        assert told["text"].startswith(f"{file}: the same value stands in every row of 'p0' (0)")


def test_each_party_names_the_columns_and_the_label_beside_its_weights_and_what_they_were_trained_for(
    done: dict[str, Json],
) -> None:
    pixels = [f"p{pixel}" for pixel in range(64)]
    for name, job in done.items():
        model = Path(job["model_path"])
        with safetensors.safe_open(model, "numpy") as tensors:
            assert json.loads(tensors.metadata()["columns"]) == pixels
            assert tensors.metadata()["label"] == "digit"
        manifest = json.loads((model.parent / "manifest.json").read_text())
        assert (manifest["columns"], manifest["label"]) == (pixels, "digit")
        assert manifest["data"] == ({"test": "test"} if name == AGGREGATOR else {"rows": "rows"})
        assert manifest["purpose"] == job["specification"]["job"]["purpose"] == "reading digits"
        assert job["specification"] == done[AGGREGATOR]["specification"]


def test_every_score_has_an_interval_beside_it(done: dict[str, Json]) -> None:
    metrics = done[AGGREGATOR]["metrics"]
    for score in ("accuracy", "auc"):
        assert metrics[f"{score}_low"] < metrics[score] < metrics[f"{score}_high"]


def test_the_report_of_each_party_draws_what_it_measured_by_round(
    parties: Parties, done: dict[str, Json], tmp_path: Path
) -> None:
    for name, charts in ((AGGREGATOR, ("Accuracy", "Loss", "Bytes")), (CLIENTS[0], ())):
        told = parties[name].call("GET", f"/v1/jobs/{done[name]['id']}/report").json()
        assert told["job"] == done[name]
        assert [point["number"] for point in told["progress"]] == [1, 2, 3, 4]
        page = reported(parties[name], done[name]["id"], tmp_path / f"{name}.html")
        assert all(f">{chart}<" in page for chart in charts)
        assert "all but id and label" in page
    assert parties[AGGREGATOR].call("GET", "/v1/jobs/none/report").status_code == 404


def reported(party: Any, job: str, page: Path) -> str:
    """What `vfl job report` writes."""
    with pytest.raises(SystemExit) as end:
        main(["job", "report", job, "--party", str(party.folder), "--output", str(page)])
    assert end.value.code == 0
    return page.read_text("utf-8")


def test_the_result_shows_a_series_by_round(parties: Parties, done: dict[str, Json]) -> None:
    job = done[AGGREGATOR]
    assert job["metrics"]["accuracy"] > 0.5
    assert job["series"]["replies"] == [3.0] * 4
    assert len(job["series"]["accuracy"]) == 4
    assert len(done["client-a"]["series"]["loss"]) == 4
    told = events(parties[AGGREGATOR], job["id"], "round")
    assert [event["data"]["round"] for event in told] == [1, 2, 3, 4]
    assert told[-1]["data"]["measures"]["accuracy"] == job["metrics"]["accuracy"]


def test_a_job_starts_from_a_registered_model(parties: Parties, done: dict[str, Json], going: str) -> None:
    measures = rounds_after(parties[AGGREGATOR], going, 0)
    assert measures[0]["accuracy"] > done[AGGREGATOR]["series"]["accuracy"][0]


def test_an_unknown_model_is_named_before_anything_is_sent(parties: Parties) -> None:
    answer = parties[AGGREGATOR].call("POST", "/v1/jobs", json={"spec": spec(1, first_model="00")})
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_model")


@pytest.mark.parametrize("name", ["model.safetensors", "manifest.json"])
def test_a_registered_model_of_which_one_bit_was_changed_is_not_taken(
    parties: Parties, done: dict[str, Json], name: str
) -> None:
    job = done[AGGREGATOR]
    path = Path(job["model_path"]).with_name(name)
    data = path.read_bytes()
    path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    try:
        answer = parties[AGGREGATOR].call("POST", "/v1/jobs", json={"spec": spec(1, first_model=job["model_digest"])})
    finally:
        path.write_bytes(data)
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["safe"]) == (422, "model_changed", "Nothing was sent.")
    assert f"{path} is not what this party stored when the job ended" in problem["detail"]


def test_a_number_of_rounds_beyond_every_limit_is_refused_when_it_is_submitted(parties: Parties) -> None:
    answer = parties[AGGREGATOR].call("POST", "/v1/jobs", json={"spec": spec(1_000_000_000)})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_spec")
    assert "rounds.rounds is 1000000000; 100000 is the most" in answer.json()["detail"]


def test_a_straggler_is_not_waited_for_past_the_deadline(parties: Parties, going: str) -> None:
    aggregator, client = parties[AGGREGATOR], parties["client-a"]
    worker = client.job(going)["worker_pid"]
    wait_for_replies(aggregator, going, 2.0)
    os.kill(worker, signal.SIGCONT)
    try:
        wait_for_replies(aggregator, going, 3.0)
    finally:
        os.kill(worker, signal.SIGSTOP)
    assert "client-a" not in [peer for peer, _ in left(aggregator, going)]
    assert client.job(going)["worker_pid"] == worker


def test_a_killed_worker_comes_back_to_a_later_round(parties: Parties, going: str) -> None:
    aggregator, client = parties[AGGREGATOR], parties["client-b"]
    before = client.job(going)
    os.kill(before["worker_pid"], signal.SIGKILL)
    wait_for_return(aggregator, going, "client-b", 1)
    assert ("client-b", "worker_vanished") in left(aggregator, going)
    after = client.job(going)
    assert after["attempt"] > before["attempt"]
    assert after["worker_pid"] not in {None, before["worker_pid"]}
    assert {party.job(going)["state"] for party in parties.values()} == {"running"}


def test_a_killed_server_takes_its_job_up_again(parties: Parties, going: str) -> None:
    aggregator, client = parties[AGGREGATOR], parties["client-c"]
    received = tasks_bytes(client, going)
    client.stop(signal.SIGKILL)
    wait_for_replies(aggregator, going, 1.0)
    client.start()
    wait_for_return(aggregator, going, "client-c", 1)
    assert client.job(going)["state"] == "running"
    assert tasks_bytes(client, going) > received > 0


def test_a_client_whose_server_is_stopped_says_so_and_returns(parties: Parties, going: str) -> None:
    aggregator, client = parties[AGGREGATOR], parties["client-b"]
    client.stop(signal.SIGTERM)
    aggregator.wait(going, lambda _found: ("client-b", "server_restarted") in left(aggregator, going))
    client.start()
    wait_for_return(aggregator, going, "client-b", 2)


def test_who_cancels_ends_the_job_for_itself_alone_unless_it_is_the_aggregator(parties: Parties, going: str) -> None:
    """The last test that uses this job."""
    aggregator, client, others = parties[AGGREGATOR], parties["client-b"], [parties["client-a"], parties["client-c"]]
    assert cancel(client, going)["state"] == "cancelled"
    aggregator.wait(going, lambda _found: ("client-b", "cancelled") in left(aggregator, going))
    wait_for_replies(aggregator, going, 1.0)
    assert cancel(aggregator, going)["state"] == "cancelled"
    for party in others:
        ended = party.over(going)
        assert (ended["state"], ended["error"]["side"]) == ("cancelled", AGGREGATOR)


def left(aggregator: Any, job: str) -> list[tuple[str, str]]:
    """(who left, why) so far."""
    return [(event["data"]["peer"], event["data"]["code"]) for event in events(aggregator, job, "left")]


def tasks_bytes(party: Any, job: str) -> int:
    return sum(line["payload_bytes"] for line in party.job(job)["traffic"] if line["kind"] == "RoundTask")
