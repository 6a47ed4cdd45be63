"""A linear model in one pass between two real servers, from the proposal to scores of new rows."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from bank_and_telco import BANK, TELCO, Parties, bank_and_telco, both_done
from command_line import VFL
from command_line import run as cli

from crypto.moments_parameters import MomentsScale
from parties.offline_scores import score_offline
from vfl.kinds import spec_of
from vfl.models.tensors import load_tensors
from vfl.spec.one_pass import OnePassSpec

KNOWN, NEW = 1500, 120
FOLDS, OWN, THEIRS = 2, 1, 2 + 4 + 3
"""Of the feature party: two numbers, four bins, three categories."""

SPECIFICATION = f"""
[job]
name = "risk"
protocol = "one_pass"
task = "binary"
[roster]
label = "{BANK}"
features = ["{TELCO}"]
[fit]
folds = {FOLDS}
penalties = [0.001, 0.01]
[data.{BANK}]
dataset = "known"
columns = ["a0"]
label = "y"
[data.{TELCO}]
dataset = "known"
columns = ["b0", "b1", "age", "plan"]
prepare = [
  {{ columns = ["age"], kind = "bins", edges = 4 }},
  {{ columns = ["plan"], kind = "one_hot", categories = 3 }},
]
"""


REGRESSION = SPECIFICATION.replace('"binary"', '"regression"').replace('label = "y"', 'label = "amount"')
CLASSES = SPECIFICATION.replace('"binary"', '"multiclass"\nclasses = 3').replace('label = "y"', 'label = "grade"')


def prediction(model: str) -> str:
    return f"""
job = {{ name = "scores", protocol = "prediction" }}
roster = {{ label = "{BANK}", features = ["{TELCO}"] }}
model = {{ training = "{model}" }}
[data]
{BANK} = {{ dataset = "new" }}
{TELCO} = {{ dataset = "new" }}
"""


def write_tables(bank: Path, telco: Path) -> None:
    draws = np.random.default_rng(4)
    for name, rows in (("known", KNOWN), ("new", NEW)):
        numbers = {column: draws.normal(size=rows) for column in ("a0", "b0", "b1")}
        words = {"age": draws.integers(18, 80, rows), "plan": draws.choice(["pro", "basic", "plus", "old"], rows)}
        table = pl.DataFrame({"id": [f"{name}-{row}" for row in range(rows)]} | numbers | words)
        score = table["a0"] + table["b0"] - table["b1"] + table["age"] / 20 + draws.normal(size=rows)
        label = pl.Series("y", (score > 2.5).cast(pl.Int8))
        grades = np.array(["low", "middle", "high"])[np.digitize(score.to_numpy(), [1.5, 3.0])]
        others = pl.Series("amount", score * 100), pl.Series("grade", grades)
        table.select("id", "a0").with_columns(label, *others).write_csv(bank / f"{name}.csv")
        table.drop("a0").write_csv(telco / f"{name}.csv")


@pytest.fixture(scope="module")
def servers(
    tmp_path_factory: pytest.TempPathFactory, new_party: Callable[..., Any], some_ports: Callable[[int], list[int]]
) -> Iterator[Parties]:
    def settings(text: str) -> str:
        return text.replace('["ckks", "none", "updates"]', '["row_sums", "scores"]')

    root = tmp_path_factory.mktemp("one_pass")
    with bank_and_telco(root, new_party, some_ports(4), write_tables, settings) as parties:
        yield parties


@pytest.fixture(scope="module")
def trained(servers: Parties) -> list[dict[str, Any]]:
    return both_done(servers, SPECIFICATION)


def test_both_parties_keep_a_half_and_the_label_party_reads_how_good_the_model_is(
    trained: list[dict[str, Any]],
) -> None:
    bank, telco = trained
    assert bank["metrics"]["auc"] > bank["metrics"]["own_columns_auc"] + 0.05
    assert telco["metrics"] == {}
    assert {"penalty_chosen", "held_out_classes"} <= {notice["code"] for notice in bank["notices"]}
    tensors = [load_tensors(Path(job["model_path"]).read_bytes()) for job in trained]
    assert tensors[0]["top.weights"].shape == (1, THEIRS + OWN + 1)
    assert set(tensors[1]) == {"preparation"}


def test_the_opened_sums_are_in_the_table_of_the_job_and_in_the_ledger_of_their_owner(
    servers: Parties, trained: list[dict[str, Any]]
) -> None:
    opened = FOLDS * (THEIRS * (OWN + 2) + (THEIRS + 1) * (THEIRS + 2) // 2 - 1)
    told = {line["message"]: line["values"] for line in trained[1]["reveals"] if line["sender"] == TELCO}
    assert told["SumsOverRows"] == opened
    lines = servers[1].call("GET", "/v1/ledger").json()["lines"]
    counted = [line["values"] for line in lines if (line["dataset"], line["column"]) == ("known", "b0")]
    assert sum(counted) >= opened
    text = " ".join(servers[1].call("GET", f"/v1/jobs/{trained[1]['id']}/summary").json()["text"].split())
    assert "telco keeps no weights, and how its own columns are prepared." in text
    assert "rho" in text


def test_the_report_says_what_a_label_party_that_deviates_can_read(
    servers: Parties, trained: list[dict[str, Any]], tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    cli(servers[0].folder, "job", "report", trained[0]["id"], "--output", str(page))
    text = " ".join(page.read_text("utf-8").split())
    bits = MomentsScale(trained[0]["plan"]["training_rows"]).bits_of_a_sum
    assert f"{bits} bits of its choice about single rows with each of these sums" in text
    assert "read a noisy score of every held-out row" in text


def test_a_regression_tells_its_coefficients_with_standard_errors(servers: Parties, tmp_path: Path) -> None:
    bank, telco = both_done(servers, REGRESSION)
    series, spec = bank["series"], spec_of(bank["specification"])
    assert isinstance(spec, OnePassSpec)
    (a0,) = [place for place, (party, _) in enumerate(spec.inputs) if party == BANK]
    assert series["coefficient"][a0] == pytest.approx(100, abs=15)
    assert series["coefficient_z"][a0] == pytest.approx(series["coefficient"][a0] / series["coefficient_error"][a0])
    assert series["coefficient_p"][a0] < 1e-6
    assert telco["series"] == {}
    page = tmp_path / "report.html"
    cli(servers[0].folder, "job", "report", bank["id"], "--output", str(page))
    command = [VFL, "job", "show", bank["id"], "--format", "text"]
    wide = os.environ | {"COLUMNS": "200"}
    shown = subprocess.run(
        command, cwd=servers[0].folder, env=wide, capture_output=True, text=True, timeout=60, check=True
    ).stdout
    for text in (page.read_text("utf-8"), shown):
        assert "standard error" in text
        assert "age from edge 4 of 4" in text
        assert "plan, category 1 of 3" in text
        assert f"{series['coefficient'][a0]:#.4g}" in text


def test_a_model_of_several_classes_has_a_score_for_each(servers: Parties) -> None:
    bank, _ = both_done(servers, CLASSES)
    assert bank["metrics"]["accuracy"] > bank["metrics"]["own_columns_accuracy"]
    tensors = load_tensors(Path(bank["model_path"]).read_bytes())
    assert tensors["top.weights"].shape == (3, THEIRS + OWN + 1)


def test_new_rows_are_scored_by_the_registered_model_as_its_halves_score_them_together(
    servers: Parties, trained: list[dict[str, Any]], tmp_path: Path
) -> None:
    bank, telco = both_done(servers, prediction(trained[0]["id"]))
    scores = pl.read_csv(bank["scores_path"])
    assert len(scores) == NEW
    folders = [tmp_path / party.folder.name for party in servers]
    for party, folder in zip(servers, folders, strict=True):
        cli(party.folder, "model", "export", trained[0]["id"], str(folder))
    tables = {party.folder.name: pl.read_csv(party.folder / "new.csv") for party in servers}
    together = score_offline(folders, tables)
    assert np.abs(scores["score"].to_numpy() - together[:, 0]).max() < 1e-3
    told = {line["message"]: line["values"] for line in telco["reveals"] if line["sender"] == TELCO and line["values"]}
    assert told == {"RowsDigest": 2, "EncryptedScores": NEW}
