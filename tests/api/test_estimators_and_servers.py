"""What an estimator writes for two servers is what it has trained in one process."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import safetensors.numpy
from pages import ROOT

from api.client import Client
from api.estimators import VerticalClassifier

CUSTOMERS = 1500
SECONDS = 300
Parties = tuple[Any, Any]

OWN, FEATURES = [f"e{at}" for at in range(10)], [f"x{at}" for at in range(20)]


@pytest.fixture(scope="module")
def model(files: tuple[Path, Path]) -> VerticalClassifier:
    """Trained in clear on what both parties' files hold."""
    patients, clinic = map(pl.read_csv, files)
    settings: dict[str, Any] = {"epochs": 3, "batch_rows": 64, "momentum": 0.5, "random_state": 0, "scheme": "none"}
    return VerticalClassifier(FEATURES, **settings).fit(patients.join(clinic, on="id").drop("id", "y"), patients["y"])


def written(model: VerticalClassifier, parties: Parties) -> str:
    label, feature = parties
    return model.to_spec(
        name="breast-cancer",
        label_party=label.name,
        label_dataset="patients",
        label="y",
        feature_party=feature.name,
        feature_dataset="clinic",
    )


def test_two_servers_with_its_seeds_train_the_very_model_of_an_estimator(
    parties: Parties, model: VerticalClassifier
) -> None:
    job = parties[0].submit(written(model, parties))
    done = [party.over(job["id"]) for party in parties]
    assert [each["state"] for each in done] == ["done", "done"], [each["error"] for each in done]
    assert done[0]["metrics"] == pytest.approx(model.metrics_)
    for party, each in zip(parties, done, strict=True):
        trained = safetensors.numpy.load(Path(each["model_path"]).read_bytes())
        rehearsed = safetensors.numpy.load(model.halves_[party.name])
        assert trained.keys() == rehearsed.keys()
        assert all(np.allclose(trained[name], rehearsed[name]) for name in trained)


def test_two_servers_train_on_ciphertexts_what_was_rehearsed_in_clear(
    parties: Parties, model: VerticalClassifier
) -> None:
    encrypted = deepcopy(model).set_params(scheme="ckks", batch_rows=228)
    job = parties[0].submit(written(encrypted, parties))
    done = [party.over(job["id"]) for party in parties]
    assert [each["state"] for each in done] == ["done", "done"], [each["error"] for each in done]
    assert done[0]["specification"]["encryption"]["scheme"] == "ckks"
    assert done[0]["metrics"]["auc"] == pytest.approx(model.metrics_["auc"], abs=0.02)


@pytest.fixture
def folders(tmp_path: Path, new_party: Callable[..., Any], some_ports: Callable[[int], list[int]]) -> Iterator[Path]:
    """The parties of getting started, each with its table, their servers running."""
    ports, draws = some_ports(4), np.random.default_rng(5)
    customers = pl.DataFrame({"customer": [f"c-{row:04}" for row in range(1, CUSTOMERS + 1)]})
    income, debt, calls = (draws.normal(size=CUSTOMERS) for _ in range(3))
    bank_rows = customers.with_columns(
        income=pl.Series(40 + 10 * income),
        debt=pl.Series(5 + debt),
        default=pl.Series((debt - income + 2 * calls + draws.normal(size=CUSTOMERS) > 0).astype(int)),
    )
    telco_rows = customers.with_columns(
        calls=pl.Series(100 + 9 * calls), data_gb=pl.Series(draws.gamma(2, size=CUSTOMERS))
    )
    servers = []
    for name, dataset, rows, at in (("bank", "customers", bank_rows, 0), ("telco", "usage", telco_rows, 2)):
        peer, address = ("telco", ports[3]) if name == "bank" else ("bank", ports[1])
        folder = tmp_path / name
        servers.append(
            new_party(
                folder, name, {peer: f"https://127.0.0.1:{address}"}, {dataset: f"{name}.csv"}, ports[at : at + 2]
            )
        )
        rows.write_csv(folder / f"{name}.csv")
    try:
        for server, dataset in zip(servers, ("customers", "usage"), strict=True):
            server.start()
            with Client.from_folder(server.folder) as client:
                client.add_dataset(
                    {"name": dataset, "source": f"{server.name}.csv", "id": ["customer"], "replace": True}
                )
        yield tmp_path
    finally:
        for server in servers:
            server.close()


def test_the_notebook_in_the_documents_runs_as_it_stands(folders: Path) -> None:
    page = (ROOT / "docs" / "estimators.md").read_text("utf-8")
    cells = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(cells)],
        cwd=folders,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "minimum_rows" not in done.stdout
    state, metrics = done.stdout.splitlines()[-1].split(maxsplit=1)
    assert (state, ast.literal_eval(metrics)["auc"] > 0.85) == ("done", True), done.stdout
    assert {path.name for path in (folders / "bank-half").iterdir()} == {
        "model.safetensors",
        "manifest.json",
        "specification.json",
        "result.json",
        "signature",
    }
