"""A prediction that stays open between two real servers: rows are scored when they are asked for, each jointly once."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest
from bank_and_telco import BANK, TELCO, Parties, bank_and_telco, both_done
from command_line import run as cli
from crowds import held, trickling

TRAINED, NEW = 300, 40
WORK = ("clerk", "nurse", "smith")
TERMS = "\nfixed_seed = true\nminimum_batch_rows = 100\npredictions_per_day = 20"
TRAINING = f"""
job = {{ name = "risk", task = "binary" }}
roster = {{ label = "{BANK}", features = ["{TELCO}"] }}
train = {{ epochs = 2, batch_rows = 120, optimiser = {{ name = "sgd", rate = 0.5 }} }}
encryption = {{ scheme = "ckks" }}
[data.{BANK}]
dataset = "known"
columns = ["a0", "work"]
label = "y"
prepare = [{{ columns = ["work"], kind = "one_hot", categories = 2, least_rows = 1 }}]
[data.{TELCO}]
dataset = "known"
columns = ["b0", "b1", "b2"]
"""
OPEN_SECONDS, ANSWER_SECONDS = 60.0, 40.0
Json = dict[str, Any]


def prediction(model: str, minutes: float = 0.0) -> str:
    session = f"session = {{ minutes = {minutes} }}" if minutes else ""
    return f"""
job = {{ name = "scores", protocol = "prediction", purpose = "test" }}
roster = {{ label = "{BANK}", features = ["{TELCO}"] }}
model = {{ training = "{model}" }}
{session}
data = {{ {BANK} = {{ dataset = "new" }}, {TELCO} = {{ dataset = "new" }} }}
"""


def write_tables(bank: Path, telco: Path) -> None:
    draws = np.random.default_rng(8)
    for name, rows in (("known", TRAINED), ("new", NEW)):
        ids = [f"{name[0]}-{row:03}" for row in range(rows)]
        columns = {column: draws.normal(size=rows) for column in ("a0", "b0", "b1", "b2")}
        label = {"y": (columns["a0"] + columns["b0"] > 0).astype(int)} if name == "known" else {}
        of_bank = {"id": ids, "a0": columns["a0"], "work": draws.choice(WORK, rows)} | label
        pl.DataFrame(of_bank).write_csv(bank / f"{name}.csv")
        pl.DataFrame({"id": ids} | {each: columns[each] for each in ("b0", "b1", "b2")}).write_csv(
            telco / f"{name}.csv"
        )


@pytest.fixture(scope="module")
def scoring(
    tmp_path_factory: pytest.TempPathFactory, new_party: Callable[..., Any], some_ports: Callable[[int], list[int]]
) -> Iterator[Parties]:
    def settings(text: str) -> str:
        allowed = text.replace('["ckks", "none", "updates"]', '["ckks", "scores"]')
        return allowed.replace("\nfixed_seed = true", TERMS)

    with bank_and_telco(
        tmp_path_factory.mktemp("sessions"), new_party, some_ports(4), write_tables, settings
    ) as parties:
        yield parties


def done(parties: Parties, job: str) -> list[Json]:
    ended = [party.over(job) for party in parties]
    assert [each["state"] for each in ended] == ["done", "done"], [each["error"] for each in ended]
    return ended


@pytest.fixture(scope="module")
def model(scoring: Parties) -> str:
    job: str = both_done(scoring, TRAINING)[0]["id"]
    return job


@pytest.fixture(scope="module")
def batch(scoring: Parties, model: str) -> dict[str, float]:
    """The score of each row, as a prediction of all of them tells it."""
    job = both_done(scoring, prediction(model))[0]
    scores = pl.read_csv(job["scores_path"])
    return dict(zip(scores["id"], scores["score"], strict=True))


def ask(parties: Parties, model: str, **asked: Any) -> httpx.Response:
    answer: httpx.Response = parties[0].call("POST", f"/v1/models/{model}/predictions", json=asked)
    return answer


def opened(parties: Parties, model: str, minutes: float = 10.0) -> str:
    """A session that answers."""
    job: str = parties[0].submit(prediction(model, minutes))["id"]
    parties[0].wait(job, lambda found: found["worker_pid"] is not None or found["error"] is not None)
    deadline = time.monotonic() + OPEN_SECONDS
    while ask(parties, model, ids=["nobody"], job=job).status_code != 200:
        assert time.monotonic() < deadline, parties[0].job(job)
        time.sleep(0.05)
    return job


@pytest.fixture(scope="module")
def session(scoring: Parties, model: str) -> Iterator[str]:
    job = opened(scoring, model)
    yield job
    scoring[0].call("POST", f"/v1/jobs/{job}/cancel")


def scores(answer: httpx.Response) -> list[float]:
    assert answer.status_code == 200, answer.text
    return [row["scores"]["score"] for row in answer.json()["rows"]]


def test_rows_that_are_asked_for_have_the_scores_of_a_prediction_of_all_rows_and_are_opened_once(
    scoring: Parties, model: str, batch: dict[str, float], session: str
) -> None:
    ids = ["n-003", "n-017", "n-003"]
    first = ask(scoring, model, ids=ids)
    assert np.abs(np.array(scores(first)) - [batch[each] for each in ids]).max() < 1e-3
    again = ask(scoring, model, ids=["n-017", "n-020"])
    assert scores(again)[0] == scores(first)[1]
    assert [answer.json()["opened"] for answer in (first, again)] == [2, 1]
    assert first.json()["job"] == session
    telco = {
        line["kind"]: line["messages"] for line in scoring[1].job(session)["traffic"] if line["direction"] == "sent"
    }
    assert telco["EncryptedScores"] == 2


def test_an_id_that_is_no_row_of_the_session_has_its_own_answer_and_spoils_no_other(
    scoring: Parties, model: str, session: str
) -> None:
    answer = ask(scoring, model, ids=["n-001", "nobody"]).json()
    assert [row["state"] for row in answer["rows"]] == ["scored", "not_in_session"]
    assert answer["rows"][1] == {"id": ["nobody"], "state": "not_in_session", "scores": None}


def test_own_values_change_the_score_by_the_own_part_and_open_nothing(
    scoring: Parties, model: str, session: str
) -> None:
    table = pl.read_csv(scoring[0].folder / "new.csv").filter(pl.col("id") == "n-005").to_dicts()[0]
    as_it_is = {"a0": table["a0"], "work": table["work"]}
    (before,) = scores(ask(scoring, model, ids=["n-005"]))
    same = ask(scoring, model, rows=[{"id": "n-005", "columns": as_it_is}])
    assert scores(same) == [before]
    assert same.json()["opened"] == 0
    rows = [{"id": "n-005", "columns": as_it_is | {"a0": as_it_is["a0"] + step}} for step in (1, 2)]
    rows.append({"id": "n-005", "columns": as_it_is | {"work": "a word that nobody has"}})
    one, two, word = scores(ask(scoring, model, rows=rows))
    assert two - one == pytest.approx(one - before, abs=2e-4)
    assert abs(one - before) > 1e-3
    assert isinstance(word, float)


@pytest.mark.parametrize(
    ("asked", "code", "said"),
    [
        ({"rows": [{"id": "n-001", "columns": {"a0": 1.0}}]}, "own_values_unfit", "and the model takes 'a0', 'work'"),
        ({"rows": [{"id": "n-001", "columns": {"a0": "x", "work": "clerk"}}]}, "own_values_unfit", "no finite number"),
        ({"rows": [{"id": "n-001", "columns": {"a0": None, "work": "clerk"}}]}, "own_values_unfit", "no value of 'a0'"),
        ({"rows": [{"id": "n-001", "columns": {"a0": 1, "work": 2}}]}, "own_values_unfit", "holds categories"),
        ({"ids": []}, "invalid_request", "either `ids` or `rows`"),
        ({"ids": ["n-001"] * 1001}, "invalid_request", "at most 1000"),
        ({"ids": ["n-001"], "job": "another"}, "no_session", "no open scoring session 'another'"),
    ],
)
def test_a_request_that_cannot_be_answered_is_refused_and_the_session_goes_on(
    scoring: Parties, model: str, session: str, asked: Json, code: str, said: str
) -> None:
    answer = ask(scoring, model, **asked).json()
    assert answer["code"] == code
    assert said in answer["detail"]
    assert len(scores(ask(scoring, model, ids=["n-001"]))) == 1


def test_each_request_is_an_event_and_the_whole_session_is_counted_in_the_ledger_of_the_columns_owner(
    scoring: Parties, model: str, session: str
) -> None:
    number = ask(scoring, model, ids=["n-030", "nobody"]).json()["request"]
    events = scoring[0].call("GET", f"/v1/jobs/{session}/events").json()["events"]
    (event,) = [each for each in events if each["kind"] == "request" and each["data"]["request"] == number]
    assert event["data"] == {"request": number, "rows": 2, "in_session": 1, "own_values": 0, "opened": 1}
    assert "n-030" not in str(events)
    lines = scoring[1].call("GET", "/v1/ledger").json()["lines"]
    counted = sum(line["values"] for line in lines if (line["dataset"], line["column"]) == ("new", "b0"))
    assert counted % NEW == 0


def test_the_command_line_opens_a_session_asks_it_and_ends_it_well_on_both_sides(
    scoring: Parties, model: str, batch: dict[str, float]
) -> None:
    bank, asked = scoring[0].folder, (model, "--data", "new", "--purpose", "test", "--session", "5")
    scoring[1].grant(cli(bank, "predict", *asked, "--print")["specification"])
    job = cli(bank, "predict", *asked)["id"]
    scoring[0].wait(job, lambda found: found["worker_pid"] is not None)
    told = cli(bank, "model", "score", model, "--id", "n-002", "--id", "nobody", "--job", job)["rows"]
    assert told[0]["scores"]["score"] == pytest.approx(batch["n-002"], abs=1e-3)
    assert told[1]["state"] == "not_in_session"
    assert cli(bank, "job", "end", job)["id"] == job
    label, feature = done(scoring, job)
    rows = pl.read_csv(label["scores_path"])
    assert rows.filter(pl.col("score").is_not_null())["id"].to_list() == ["n-002"]
    for side in (label, feature):
        shown = {line["message"]: line["values"] for line in side["reveals"] if line["values"]}
        assert shown == {"RowsDigest": 2, "RowsToScore": 1, "EncryptedScores": 1}
    again = scoring[0].call("POST", f"/v1/jobs/{job}/end")
    assert (again.status_code, again.json()["code"]) == (409, "no_session")


def test_a_session_ends_well_on_both_sides_when_its_minutes_are_over(scoring: Parties, model: str) -> None:
    job = scoring[0].submit(prediction(model, 0.02))["id"]
    assert [each["metrics"] for each in done(scoring, job)] == [{"opened_rows": 0.0}] * 2


def test_a_session_answers_and_is_cancelled_while_crowds_hold_and_trickle_on_all_ports(
    scoring: Parties, model: str
) -> None:
    job = opened(scoring, model)
    with contextlib.ExitStack() as crowds:
        for at, port in enumerate(port for party in scoring for port in (party.operator_port, party.peer_port)):
            crowds.enter_context(held(port, 125, f"127.0.0.{30 + at}"))
            crowds.enter_context(trickling(port, 10, f"127.0.0.{40 + at}"))
        assert len(scores(ask(scoring, model, ids=["n-001", "n-002"], job=job))) == 2
        for party in scoring:
            assert job in {listed["id"] for listed in party.call("GET", "/v1/jobs").json()["jobs"]}
        assert scoring[1].call("POST", f"/v1/jobs/{job}/cancel").json()["state"] == "cancelled"
        assert [party.over(job)["state"] for party in scoring] == ["cancelled", "cancelled"]


def test_without_an_open_session_and_at_the_other_party_the_answer_says_how_one_begins(
    scoring: Parties, model: str
) -> None:
    answer = scoring[1].call("POST", f"/v1/models/{model}/predictions", json={"ids": ["n-001"]})
    assert (answer.status_code, answer.json()["code"]) == (409, "no_session")
    assert "vfl predict MODEL --data NAME --session MINUTES" in answer.json()["hint"]
    answer = ask(scoring, "0" * 32, ids=["n-001"])
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_model")


@pytest.mark.parametrize("killed", [BANK, TELCO])
def test_a_server_that_is_killed_ends_the_session_on_both_sides(scoring: Parties, model: str, killed: str) -> None:
    job = scoring[0].submit(prediction(model, 10))["id"]
    for party in scoring:
        party.wait(job, lambda found: found["worker_pid"] is not None)
    away = next(party for party in scoring if party.name == killed)
    away.stop(signal.SIGKILL)
    away.start()
    ended = [party.over(job) for party in scoring]
    assert [each["state"] for each in ended] == ["failed", "failed"]
    assert all(each["scores_path"] is None for each in ended)
    if killed == TELCO:
        answer = ask(scoring, model, ids=["n-001"], job=job)
        assert (answer.status_code, answer.json()["code"]) == (409, "no_session")
