"""Two real servers train, align new rows and score them; the label party alone reads the scores."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from bank_and_telco import BANK, TELCO, Parties, bank_and_telco, both_done
from command_line import VFL
from command_line import run as cli

from parties.offline_scores import score_offline
from vfl.errors import ModelUnfit
from vfl.kinds import spec_of
from vfl.protocols.halves_together import score_together
from vfl.setup import Table
from vfl.spec.training import TrainingSpec

TRAINED, COMMON, LONE = 400, 150, 40
PLANS = ("pro", "basic", "plus")
SCHEMES = '["ckks", "none", "common_ids", "scores"]'
TERMS = "\nfixed_seed = true\nminimum_batch_rows = 160\nalignments_per_day = 2\npredictions_per_day = 7"


def training(scheme: str, *, top: str = "linear") -> str:
    hidden = ", hidden = [2]" if top == "mlp" else ""
    return f"""
[job]
name = "risk"
task = "binary"
[roster]
label = "{BANK}"
features = ["{TELCO}"]
[data.{BANK}]
dataset = "known"
columns = ["a0"]
label = "y"
[data.{TELCO}]
dataset = "known"
columns = ["b0", "b1", "plan"]
prepare = [{{ columns = ["plan"], kind = "one_hot", categories = 2 }}, {{ kind = "quantile", missing = "median" }}]
[model]
top = {{ kind = "{top}"{hidden} }}
[train]
epochs = {1 if top == "mlp" else 3}
batch_rows = 160
optimiser = {{ name = "sgd", rate = 0.5 }}
[encryption]
scheme = "{scheme}"
"""


def prediction(model: str, *, rows: str = "", bank: str = "new", telco: str = "new") -> str:
    aligned = f'rows = {{ alignment = "{rows}" }}' if rows else ""
    return f"""
job = {{ name = "scores", protocol = "prediction", purpose = "test" }}
roster = {{ label = "{BANK}", features = ["{TELCO}"] }}
model = {{ training = "{model}" }}
{aligned}
[data]
{BANK} = {{ dataset = "{bank}" }}
{TELCO} = {{ dataset = "{telco}" }}
"""


ALIGNMENT = f"""
job = {{ name = "new rows", protocol = "alignment" }}
roster = {{ parties = ["{BANK}", "{TELCO}"] }}
align = {{ minimum_ids = 100 }}
[data]
{BANK} = {{ dataset = "new", id = ["id"] }}
{TELCO} = {{ dataset = "new", id = ["id"] }}
"""


def write_tables(bank: Path, telco: Path) -> None:
    """Known rows stand in one order; new ones are shuffled, each party has some alone, and there is a word that nobody
    has trained on."""
    draws = np.random.default_rng(8)
    known = table(draws, [f"k-{row}" for row in range(TRAINED)])
    of_bank(known).with_columns(y=pl.when(known["a0"] + known["b0"] > 0).then(1).otherwise(0)).write_csv(
        bank / "known.csv"
    )
    of_telco(known).write_csv(telco / "known.csv")
    new = table(draws, [f"n-{row}" for row in range(COMMON + 2 * LONE)])
    new[3, "plan"] = "ultra"
    bank_rows = draws.permutation(COMMON + LONE)
    telco_rows = draws.permutation([*range(COMMON), *range(COMMON + LONE, len(new))])
    of_bank(new)[bank_rows].write_csv(bank / "new.csv")
    of_telco(new)[telco_rows].write_csv(telco / "new.csv")
    of_telco(new)[telco_rows].drop("b1").write_csv(telco / "narrow.csv")


def table(draws: np.random.Generator, ids: list[str]) -> pl.DataFrame:
    numbers = {name: draws.normal(size=len(ids)) for name in ("a0", "b0", "b1")}
    return pl.DataFrame({"id": ids} | numbers | {"plan": draws.choice(PLANS, len(ids))})


def of_bank(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select("id", "a0")


def of_telco(rows: pl.DataFrame) -> pl.DataFrame:
    gaps = pl.when(pl.int_range(pl.len()) % 9 == 0).then(None).otherwise(pl.col("b1"))
    return rows.select("id", "b0", gaps.alias("b1"), "plan")


@pytest.fixture(scope="module")
def scoring(
    tmp_path_factory: pytest.TempPathFactory, new_party: Callable[..., Any], some_ports: Callable[[int], list[int]]
) -> Iterator[Parties]:
    def settings(text: str) -> str:
        allowed = text.replace('["ckks", "none", "updates"]', SCHEMES)
        return allowed.replace("\nfixed_seed = true", TERMS)

    root, ports = tmp_path_factory.mktemp("scoring"), some_ports(4)
    with bank_and_telco(root, new_party, ports, write_tables, settings, {"narrow": "narrow.csv"}) as parties:
        yield parties


def run(parties: Parties, spec: str) -> list[dict[str, Any]]:
    job = parties[0].submit(spec)["id"]
    return [party.over(job) for party in parties]


@pytest.fixture(scope="module")
def aligned(scoring: Parties) -> str:
    digest: str = both_done(scoring, ALIGNMENT)[0]["result_digest"]
    return digest


@pytest.fixture(scope="module")
def model(scoring: Parties) -> list[dict[str, Any]]:
    return both_done(scoring, training("ckks"))


def clear_scores(parties: Parties, trained: list[dict[str, Any]], ids: list[str]) -> np.ndarray:
    """As both halves score the rows of these ids, brought together with both tables."""
    spec = spec_of(trained[0]["specification"])
    assert isinstance(spec, TrainingSpec)
    label, feature = (Path(job["model_path"]).read_bytes() for job in trained)
    rows = [pl.read_csv(party.folder / "new.csv").filter(pl.col("id").is_in(ids)) for party in parties]
    own, others = (pl.DataFrame({"id": ids}).join(each, on="id", how="left", maintain_order="left") for each in rows)
    words = tuple(sorted(set(others["plan"])))
    codes = [words.index(word) for word in others["plan"]]
    columns = np.column_stack([others["b0"], others["b1"].fill_null(np.nan), codes]).astype(np.float64)
    tables = {BANK: Table(b"", own.select("a0").to_numpy()), TELCO: Table(b"", columns, words={2: words})}
    scores = score_together(spec, {BANK: label, TELCO: feature}, tables)
    return scores[:, 0]


def scores_in(job: Mapping[str, Any]) -> pl.DataFrame:
    return pl.read_csv(job["scores_path"])


@pytest.mark.parametrize(("scheme", "top"), [("ckks", "linear"), ("ckks", "mlp"), ("none", "linear")])
def test_aligned_new_rows_are_scored_as_the_model_scores_them_in_clear(
    scoring: Parties, aligned: str, model: list[dict[str, Any]], scheme: str, top: str
) -> None:
    trained = model if (scheme, top) == ("ckks", "linear") else both_done(scoring, training(scheme, top=top))
    bank, telco = both_done(scoring, prediction(trained[0]["id"], rows=aligned))
    scores = scores_in(bank)
    assert scores.columns == ["id", "score"]
    assert set(scores["id"]) == {f"n-{row}" for row in range(COMMON)}
    errors = np.abs(scores["score"].to_numpy() - clear_scores(scoring, trained, list(scores["id"])))
    assert errors.max() < 1e-3
    assert scores["score"].to_numpy().std() > 0.01
    assert telco["scores_path"] is None
    for job in (bank, telco):
        codes = {notice["code"] for notice in job["notices"] if notice["kind"] == "warning"}
        assert codes == ({"nothing_encrypted"} if scheme == "none" else set())
    assert not list(scoring[1].folder.rglob("scores*"))
    path = Path(bank["scores_path"])
    assert (path.stat().st_mode & 0o777, path.parent.name) == (0o600, bank["id"])
    told = {line["message"]: line["values"] for line in telco["reveals"] if line["sender"] == TELCO and line["values"]}
    assert told == {"RowsDigest": 2} | (
        {"EncryptedScores": COMMON} if scheme == "ckks" else {"EvaluationRows": COMMON * 6}
    )


def test_what_was_read_of_each_column_is_counted_in_the_ledger_of_its_owner(
    scoring: Parties, aligned: str, model: list[dict[str, Any]]
) -> None:
    def counted() -> int:
        lines = scoring[1].call("GET", "/v1/ledger").json()["lines"]
        return sum(line["values"] for line in lines if (line["dataset"], line["column"]) == ("new", "b0"))

    before = counted()
    job = both_done(scoring, prediction(model[0]["id"], rows=aligned))[1]
    assert counted() - before == COMMON
    summary = scoring[1].call("GET", f"/v1/jobs/{job['id']}/summary").json()["text"]
    assert "It tells something of each of 150 rows." in " ".join(summary.split())
    assert "bank keeps a score of every row, rounded to 4 decimals." in " ".join(summary.split())


@pytest.fixture(scope="module")
def by_command(scoring: Parties, aligned: str, model: list[dict[str, Any]]) -> dict[str, Any]:
    """A prediction whose specification `vfl predict` has written, as the label party shows it."""
    bank, asked = scoring[0].folder, (model[0]["id"], "--data", "new", "--alignment", aligned, "--purpose", "test")
    assert cli(bank, "predict", *asked, "--print")["specification"].startswith("[job]")
    scoring[1].grant(cli(bank, "predict", *asked, "--print")["specification"])
    job: dict[str, Any] = scoring[0].over(cli(bank, "predict", *asked)["id"])
    assert job["state"] == "done", job["error"]
    return job


def test_the_command_line_predicts_and_writes_the_scores_as_csv_and_json(
    scoring: Parties, by_command: dict[str, Any], tmp_path: Path
) -> None:
    bank = scoring[0].folder
    rows = cli(bank, "job", "scores", by_command["id"], "--output", str(tmp_path / "out.csv"))["rows"]
    assert (tmp_path / "out.csv").read_bytes() == Path(by_command["scores_path"]).read_bytes()
    assert rows == scores_in(by_command).to_dicts()
    again = ["job", "scores", by_command["id"], "--output", str(tmp_path / "out.csv")]
    (tmp_path / "out.csv").write_text("mine")
    refused = subprocess.run([VFL, *again, "--format", "json"], cwd=bank, capture_output=True, check=False)
    assert (refused.returncode, json.loads(refused.stdout)["error_code"]) == (4, "file_exists")
    assert (tmp_path / "out.csv").read_text() == "mine"
    cli(bank, *again, "--force")
    assert (tmp_path / "out.csv").read_bytes() == Path(by_command["scores_path"]).read_bytes()
    answer = scoring[1].call("GET", f"/v1/jobs/{by_command['id']}/scores")
    assert (answer.status_code, answer.json()["code"]) == (404, "no_scores")
    assert by_command["scores_path"] in by_text(bank, "job", "show", by_command["id"])


def test_both_sides_list_the_model_under_one_name_with_their_own_columns_and_what_was_scored(
    scoring: Parties, by_command: dict[str, Any], model: list[dict[str, Any]]
) -> None:
    for party, columns, label in zip(scoring, (["a0"], ["b0", "b1", "plan"]), ("y", ""), strict=True):
        listed = cli(party.folder, "model", "list")["models"]
        assert {each["protocol"] for each in listed} == {"training"}
        (shown,) = [each for each in listed if each["training"] == model[0]["id"]]
        assert shown == cli(party.folder, "model", "show", model[0]["id"])
        assert (shown["columns"], shown["label"]) == (columns, label)
        assert by_command["id"] in shown["predictions"]
        assert model[0]["id"] in by_text(party.folder, "model", "list")
    answer = scoring[0].call("GET", "/v1/models/unheard")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_model")


def test_exported_halves_brought_together_score_as_the_parties_did_jointly(
    scoring: Parties, by_command: dict[str, Any], model: list[dict[str, Any]], tmp_path: Path
) -> None:
    folders = [tmp_path / party.name for party in scoring]
    for party, folder in zip(scoring, folders, strict=True):
        cli(party.folder, "model", "export", model[0]["id"], str(folder))
        assert sorted(path.name for path in folder.iterdir()) == [
            "manifest.json",
            "model.safetensors",
            "result.json",
            "signature",
            "specification.json",
        ]
    joint = scores_in(by_command)
    tables = {
        party.name: joint.select("id").join(pl.read_csv(party.folder / "new.csv"), "id", "left", maintain_order="left")
        for party in scoring
    }
    offline = score_offline(folders, tables)
    assert np.abs(offline[:, 0] - joint["score"].to_numpy()).max() < 1e-3
    with pytest.raises(ModelUnfit, match="the halves are of bank, and one of bank, telco is needed"):
        score_offline(folders[:1], tables)
    with pytest.raises(ModelUnfit, match="no column 'b1'"):
        score_offline(folders, tables | {TELCO: tables[TELCO].drop("b1")})


def test_a_prediction_that_no_grant_covers_waits_for_the_operator_who_reads_what_it_tells(
    scoring: Parties, model: list[dict[str, Any]], aligned: str
) -> None:
    spec = prediction(model[0]["id"], rows=aligned).replace('purpose = "test"', 'purpose = "not granted"')
    checked = scoring[0].call("POST", f"/v1/doctor/{TELCO}/job", json={"spec": spec}).json()["findings"]
    assert {finding["result"] for finding in checked} == {"ok", "warning"}, checked
    submitted = scoring[0].call("POST", "/v1/jobs", json={"spec": spec}).json()
    scoring[1].wait(submitted["id"], lambda job: job["waits_for"] == "approval")
    shown = scoring[1].call("GET", f"/v1/jobs/{submitted['id']}/summary").json()["text"]
    assert "scores" in shown
    assert scoring[1].call("POST", f"/v1/jobs/{submitted['id']}/approve", json={}).status_code == 200
    job = scoring[0].over(submitted["id"])
    assert (job["state"], len(scores_in(job))) == ("done", COMMON), job["error"]
    place = scoring[0].folder / "page.html"
    cli(scoring[0].folder, "job", "report", job["id"], "--output", str(place))
    page = place.read_text("utf-8")
    assert "The label party read a noisy score of every row." in page
    assert job["scores_path"] in page


def by_text(folder: Path, *arguments: str) -> str:
    done = subprocess.run([VFL, *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def refused(parties: Parties, spec: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What both sides are told of a job that fails, after which neither keeps anything of it."""
    ended = run(parties, spec)
    assert [job["state"] for job in ended] == ["failed", "failed"], ended
    for party, job in zip(parties, ended, strict=True):
        assert not (party.folder / "models" / job["id"]).exists()
        assert job["scores_path"] is None
    return ended[0]["error"], ended[1]["error"]


def test_a_model_that_nobody_has_trained_is_refused_before_anything_is_sent(scoring: Parties) -> None:
    answer = scoring[0].call("POST", "/v1/jobs", json={"spec": prediction("0" * 32)})
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_model")


def test_a_job_that_trained_no_halves_is_refused_by_name(scoring: Parties, aligned: str) -> None:
    jobs = scoring[0].call("GET", "/v1/jobs").json()["jobs"]
    alignment = next(job["id"] for job in jobs if job["name"] == "new rows")
    answer = scoring[0].call("POST", "/v1/jobs", json={"spec": prediction(alignment, rows=aligned)})
    assert answer.json()["code"] == "impossible_job"
    assert "of the kind 'alignment'" in answer.json()["detail"]


def test_a_column_that_is_missing_is_named_to_its_owner_and_not_to_the_peer(
    scoring: Parties, model: list[dict[str, Any]]
) -> None:
    told, own = refused(scoring, prediction(model[0]["id"], telco="narrow"))
    assert (own["code"], told["code"]) == ("unknown_column", "invalid_data")
    assert "b1" in own["message"]
    assert "b1" not in json.dumps(told)


def test_rows_that_were_not_aligned_end_the_job_and_leave_nothing_behind(
    scoring: Parties, model: list[dict[str, Any]]
) -> None:
    told, own = refused(scoring, prediction(model[0]["id"]))
    assert {told["code"], own["code"]} == {"rows_differ"}


def test_a_party_that_has_lost_its_half_says_so_and_nothing_more(
    scoring: Parties, model: list[dict[str, Any]], aligned: str
) -> None:
    folder = Path(model[1]["model_path"]).parent
    shutil.move(folder, folder.with_name("away"))
    try:
        told, own = refused(scoring, prediction(model[0]["id"], rows=aligned))
    finally:
        shutil.move(folder.with_name("away"), folder)
    assert told["code"] == own["code"] == "unknown_model"
    assert told["message"].endswith("does not hold the model that the job names")


def test_a_half_that_was_changed_on_disk_is_not_applied(
    scoring: Parties, model: list[dict[str, Any]], aligned: str
) -> None:
    weights = Path(model[0]["model_path"])
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    try:
        answer = scoring[0].call("POST", "/v1/jobs", json={"spec": prediction(model[0]["id"], rows=aligned)})
    finally:
        weights.write_bytes(before)
    assert answer.json()["code"] == "model_changed"


def test_a_peer_may_have_the_rows_of_a_data_set_scored_so_often_in_a_day_and_no_more(
    scoring: Parties, model: list[dict[str, Any]], aligned: str
) -> None:
    spec = prediction(model[0]["id"], rows=aligned)
    ended: list[dict[str, Any]] = []
    while not ended or ended[-1]["state"] == "done":
        assert len(ended) < 8
        ended.append(run(scoring, spec)[0])
    told = ended[-1]["error"]
    assert told["code"] == "policy_refused"
    assert "acceptance.predictions_per_day" in told["message"]
