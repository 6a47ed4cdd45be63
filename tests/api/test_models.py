"""What a party does with its half of a trained model beside a job: two real servers, and the command line."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import polars as pl
import pytest
from bank_and_telco import BANK, TELCO, Parties, bank_and_telco, both_done
from command_line import VFL
from command_line import run as cli

from parties.model_errors import ForeignModel, ModelChanged
from parties.offline_scores import score_offline
from parties.storage.exported_half import SIGNED_FILES, signed_files
from parties.trust.identity import Identity
from vfl.errors import InvalidBottom

ROWS = 400
PLANS = ("pro", "basic", "plus")
TRAINING = f"""
[job]
name = "risk"
task = "binary"
[roster]
label = "{BANK}"
features = ["{TELCO}"]
[data.{BANK}]
dataset = "known"
columns = ["a0", "job"]
label = "y"
prepare = [{{ columns = ["job"], kind = "one_hot", categories = 2 }}]
[data.{TELCO}]
dataset = "known"
columns = ["b0", "b1", "plan"]
prepare = [{{ columns = ["plan"], kind = "one_hot", categories = 2 }}, {{ kind = "quantile", missing = "median" }}]
[train]
epochs = 3
batch_rows = 160
optimiser = {{ name = "sgd", rate = 0.5 }}
[encryption]
scheme = "none"
"""
PRIVATE = """
[model]
layout = "embeddings"
bottom = { kind = "private", out = 2 }
top = { kind = "mlp", hidden = [3] }
[protection]
cut_noise = { method = "none" }
[encryption]"""
BOTTOM = """
import torch

def build(columns, width):
    return torch.nn.Sequential(torch.nn.Linear(columns, 4), torch.nn.Sigmoid(), torch.nn.Linear(4, width))
"""


def prediction(model: str) -> str:
    return f"""
job = {{ name = "scores", protocol = "prediction", purpose = "test" }}
roster = {{ label = "{BANK}", features = ["{TELCO}"] }}
model = {{ training = "{model}" }}
[data]
{BANK} = {{ dataset = "new" }}
{TELCO} = {{ dataset = "new" }}
"""


def write_tables(bank: Path, telco: Path) -> None:
    draws = np.random.default_rng(8)
    for name, rows in (("known", ROWS), ("new", 150)):
        numbers = {column: draws.normal(size=rows) for column in ("a0", "b0", "b1")}
        words = {column: draws.choice(PLANS, rows) for column in ("plan", "job")}
        table = pl.DataFrame({"id": [f"{name}-{row}" for row in range(rows)]} | numbers | words)
        positive = pl.when(table["a0"] + table["b0"] > 0).then(1).otherwise(0)
        own = table.select("id", "a0", "job")
        (own.with_columns(y=positive) if name == "known" else own).write_csv(bank / f"{name}.csv")
        gaps = pl.when(pl.int_range(pl.len()) % 9 == 0).then(None).otherwise(pl.col("b1"))
        table.select("id", "b0", gaps.alias("b1"), "plan").write_csv(telco / f"{name}.csv")
    (telco / "bottom.py").write_text(BOTTOM)


@pytest.fixture(scope="module")
def both(
    tmp_path_factory: pytest.TempPathFactory, new_party: Callable[..., Any], some_ports: Callable[[int], list[int]]
) -> Iterator[Parties]:
    def settings(text: str) -> str:
        changed = text.replace("\nfixed_seed = true", "\nfixed_seed = true\nminimum_batch_rows = 160")
        return f'{changed}\n[bottom]\nmodule = "bottom.py:build"\n' if f'name = "{TELCO}"' in text else changed

    root = tmp_path_factory.mktemp("models")
    with bank_and_telco(root, new_party, some_ports(4), write_tables, settings) as parties:
        yield parties


def refused(folder: Path, *arguments: str) -> dict[str, Any]:
    """What the command line answers to what does not succeed."""
    command = [VFL, *arguments, "--format", "json"]
    ended = subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=60)
    assert ended.returncode, ended.stdout
    answer: dict[str, Any] = json.loads(ended.stdout)
    return answer


@pytest.fixture(scope="module")
def model(both: Parties) -> str:
    training: str = both_done(both, TRAINING)[0]["id"]
    return training


@pytest.fixture(scope="module")
def halves(both: Parties, model: str, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folders = [tmp_path_factory.mktemp("halves") / party.name for party in both]
    for party, folder in zip(both, folders, strict=True):
        cli(party.folder, "model", "export", model, str(folder))
    return folders


def new_rows(parties: Parties) -> dict[str, pl.DataFrame]:
    return {party.name: pl.read_csv(party.folder / "new.csv") for party in parties}


def flipped(data: bytes, bit: int) -> bytes:
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


@pytest.mark.parametrize(
    "name", ["signature", "manifest.json", "model.safetensors", "result.json", "specification.json"]
)
def test_one_bit_that_changed_in_a_file_of_an_exported_half_is_found_and_the_file_named(
    both: Parties, halves: list[Path], name: str
) -> None:
    file, tables = halves[0] / name, new_rows(both)
    data = file.read_bytes()
    bits = np.random.default_rng(3).permutation(8 * len(data))
    try:
        for bit in bits[: 300 if name == "signature" else 40]:
            file.write_bytes(flipped(data, int(bit)))
            with pytest.raises(ModelChanged) as changed:
                score_offline(halves, tables)
            assert name in str(changed.value)
            assert changed.value.safe == "Nothing was scored."
        file.unlink()
        with pytest.raises(ModelChanged, match=f"{name} cannot be read"):
            score_offline(halves, tables)
    finally:
        file.write_bytes(data)


def test_an_exported_half_names_the_entry_of_the_audit_log_and_the_key_that_signed_it(
    both: Parties, halves: list[Path], model: str
) -> None:
    bank, lines = both[0], (halves[0] / "signature").read_text("utf-8").splitlines()
    assert lines[:3] == ["vfl-model-half/v1", BANK, f"training {model}"]
    number = int(lines[3].removeprefix("audit log entry "))
    (entry,) = bank.call("GET", f"/v1/audit/entries?after={number}&limit=1").json()["entries"]
    assert (entry["event"], entry["job"]) == ("job_ended", model)
    shown = cli(bank.folder, "model", "show", model)
    assert entry["detail"]["manifest"] == shown["manifest_digest"]
    own = {party.name: cli(party.folder, "key", "show")["fingerprint"] for party in both}
    assert len(score_offline(halves, new_rows(both), fingerprints=own)) == len(new_rows(both)[BANK])
    with pytest.raises(ForeignModel, match=f"the half of {BANK} is signed by the key {own[BANK]}, and not by"):
        score_offline(halves, new_rows(both), fingerprints={BANK: own[TELCO]})


def test_a_half_that_a_server_has_lost_is_imported_again_and_scores_jointly(
    both: Parties, halves: list[Path], model: str
) -> None:
    bank = both[0]
    before = cli(bank.folder, "model", "show", model)
    expected = pl.read_csv(both_done(both, prediction(model))[0]["scores_path"])
    assert refused(bank.folder, "model", "import", str(halves[0]))["error_code"] == "model_known"
    shutil.rmtree(bank.folder / "models" / model)
    assert bank.call("GET", f"/v1/models/{model}").json()["code"] == "unknown_model"
    imported = cli(bank.folder, "model", "import", str(halves[0]))
    assert {name: imported[name] for name in ("training", "metrics", "model_digest", "manifest_digest")} == {
        name: before[name] for name in ("training", "metrics", "model_digest", "manifest_digest")
    }
    scores = pl.read_csv(both_done(both, prediction(model))[0]["scores_path"])
    assert np.abs(scores["score"].to_numpy() - expected["score"].to_numpy()).max() < 1e-3


def test_a_half_of_another_party_and_a_damaged_one_are_refused_and_nothing_is_imported(
    both: Parties, halves: list[Path], model: str, tmp_path: Path
) -> None:
    bank = both[0]
    foreign = refused(bank.folder, "model", "import", str(halves[1]))
    assert (foreign["error_code"], foreign["message"].endswith("Nothing was imported.")) == ("foreign_model", True)
    assert "holds the half of telco, and this party is bank" in foreign["message"]
    damaged = tmp_path / "damaged"
    shutil.copytree(halves[0], damaged)
    weights = damaged / "model.safetensors"
    weights.write_bytes(flipped(weights.read_bytes(), 3000))
    answer = refused(bank.folder, "model", "import", str(damaged))
    assert (answer["error_code"], answer["message"].endswith("Nothing was imported.")) == ("model_changed", True)
    assert f"{weights} is not what bank has signed" in answer["message"]
    assert refused(bank.folder, "model", "import", str(tmp_path / "nothing"))["error_code"] == "model_changed"
    assert bank.call("GET", f"/v1/models/{model}").status_code == 200


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("manifest.json", b"{"),
        ("manifest.json", b"[" * 50_000),
        ("manifest.json", b"{}"),
        ("result.json", b"3"),
        ("model.safetensors", b"no weights"),
        ("model.safetensors", b"\xff" * 7 + b"\x7f{}"),
        ("specification.json", b"[" * 50_000),
    ],
)
def test_what_somebody_else_has_put_together_and_signed_is_refused_by_the_name_of_the_file(
    both: Parties, halves: list[Path], model: str, tmp_path: Path, name: str, data: bytes
) -> None:
    """Under the name of this party, by a key of their own."""
    made = {file: (halves[0] / file).read_bytes() for file in SIGNED_FILES} | {name: data}
    for file, content in signed_files(made, model, 0, Identity.generate(BANK)).items():
        (tmp_path / file).write_bytes(content)
    answer = refused(both[0].folder, "model", "import", str(tmp_path))
    assert answer["error_code"] == "model_changed"
    assert str(tmp_path / ("signature" if data == b"{}" else name)) in answer["message"]


@pytest.mark.parametrize("trap", ["pipe", "device", "hole"])
def test_a_folder_that_holds_what_would_never_end_is_refused_by_the_name_of_the_file(
    both: Parties, halves: list[Path], tmp_path: Path, trap: str
) -> None:
    folder, weights = tmp_path / "trap", tmp_path / "trap" / "model.safetensors"
    shutil.copytree(halves[0], folder)
    weights.unlink()
    if trap == "pipe":
        os.mkfifo(weights)
    elif trap == "device":
        weights.symlink_to("/dev/zero")
    else:
        weights.touch()
        os.truncate(weights, 1 << 40)  # takes no space on the disk
    for _ in range(3):  # more than are read at once
        answer = refused(both[0].folder, "model", "import", str(folder))
        assert answer["error_code"] == "model_changed"
        assert f"{weights} is no file of a half" in answer["message"]
    assert both[0].call("GET", "/v1/models").status_code == 200


def test_halves_with_a_private_bottom_model_score_offline_as_they_did_jointly(both: Parties, tmp_path: Path) -> None:
    trained: str = both_done(both, TRAINING.replace("[encryption]", PRIVATE))[0]["id"]
    joint = pl.read_csv(both_done(both, prediction(trained))[0]["scores_path"])
    folders = [tmp_path / party.name for party in both]
    for party, folder in zip(both, folders, strict=True):
        cli(party.folder, "model", "export", trained, str(folder))
    with pytest.raises(InvalidBottom, match="the bottom model of telco is private") as refusal:
        score_offline(folders, new_rows(both))
    assert refusal.value.safe == "Nothing was scored."
    build = runpy.run_path(str(both[1].folder / "bottom.py"))["build"]
    offline = score_offline(folders, new_rows(both), bottoms={TELCO: build})
    assert np.abs(offline[:, 0] - joint["score"].to_numpy()).max() <= 0.5e-4 + 1e-9
    assert joint["score"].to_numpy().std() > 1e-3


def test_a_half_that_is_exported_as_onnx_scores_in_another_program(both: Parties, model: str, tmp_path: Path) -> None:
    scores, asked = tmp_path / "own.csv", ("predict", model, "--data", "new", "--own-columns-only")
    cli(both[0].folder, *asked, "--decimals", "6", "--output", str(scores))
    exported = cli(both[0].folder, "model", "export", model, str(tmp_path / "bank"), "--onnx")
    assert exported["onnx"] == ["model.onnx", "own_columns.onnx"]
    session = onnxruntime.InferenceSession(tmp_path / "bank" / "own_columns.onnx", providers=["CPUExecutionProvider"])
    rows = new_rows(both)[BANK]
    fed = {"a0": rows["a0"].to_numpy()[:, None], "job": rows["job"].to_numpy().astype(object)[:, None]}
    (given,) = session.run(None, fed)
    assert np.abs(given[:, 0] - pl.read_csv(scores)["own_columns_score"].to_numpy()).max() < 1e-5
    assert cli(both[1].folder, "model", "export", model, str(tmp_path / "telco"), "--onnx")["onnx"] == ["model.onnx"]


def test_where_onnx_is_not_installed_the_export_says_how_to_get_it_and_writes_nothing(
    both: Parties, model: str, tmp_path: Path
) -> None:
    hidden = "import sys; sys.modules['onnx'] = None; from api.cli.main import main; main()"
    command = [
        sys.executable,
        "-c",
        hidden,
        "model",
        "export",
        model,
        str(tmp_path / "half"),
        "--onnx",
        "--format",
        "json",
    ]
    ended = subprocess.run(command, cwd=both[0].folder, capture_output=True, check=False, timeout=60)
    answer = json.loads(ended.stdout)
    assert (answer["error_code"], "pip install onnx" in answer["hint"]) == ("onnx_missing", True)
    assert not (tmp_path / "half").exists()


def test_while_its_peer_is_away_the_label_party_scores_by_its_own_columns_alone_and_says_so(
    both: Parties, model: str, tmp_path: Path
) -> None:
    bank, telco = both
    shown = cli(bank.folder, "model", "show", model)
    assert 0.5 < shown["metrics"]["own_columns_auc"] < shown["metrics"]["auc"]
    place, asked = tmp_path / "own.csv", ("predict", model, "--data", "new", "--own-columns-only")
    telco.stop()
    try:
        before = bank.call("GET", "/v1/audit/head").json()["size"]
        answer = cli(bank.folder, *asked, "--output", str(place))
        assert answer == {"model": model, "basis": "own_columns_only", "file": str(place)}
        assert bank.call("GET", "/v1/audit/head").json()["size"] == before
        refusal = refused(bank.folder, *asked, "--output", str(place))
        assert refusal["error_code"] == "file_exists"
    finally:
        telco.start()
    scores, own = pl.read_csv(place), new_rows(both)[BANK]
    assert scores.columns == ["id", "own_columns_score"]
    assert scores["id"].to_list() == own["id"].to_list()
    assert np.corrcoef(scores["own_columns_score"], own["a0"])[0, 1] > 0.9
    joint = pl.read_csv(both_done(both, prediction(model))[0]["scores_path"])
    assert np.abs(scores["own_columns_score"].to_numpy() - joint["score"].to_numpy()).max() > 0.05
    path = f"/v1/models/{model}/own-columns-scores"
    body = bank.call("POST", path, json={"dataset": "new", "decimals": 2}).json()
    assert (body["model"], body["basis"]) == (model, "own_columns_only")
    rounded = [row["own_columns_score"] for row in body["rows"]]
    assert np.abs(np.array(rounded) - scores["own_columns_score"].to_numpy()).max() <= 0.0051
    answer = telco.call("POST", path, json={"dataset": "new"}).json()
    assert (answer["code"], "telco is not the label party" in answer["detail"]) == ("model_unfit", True)
    assert bank.call("POST", path, json={"dataset": "nothing"}).json()["code"] == "unknown_dataset"


def test_servers_that_were_set_up_anew_under_their_old_keys_import_their_halves_and_score_jointly(
    both: Parties, halves: list[Path], model: str, new_party: Callable[..., Any], tmp_path: Path
) -> None:
    expected = pl.read_csv(both_done(both, prediction(model))[0]["scores_path"])
    anew = tuple(
        new_party(
            tmp_path / party.name,
            party.name,
            {other.name: other.peer for other in both if other is not party},
            {"new": "new.csv"},
            [party.operator_port, party.peer_port],
        )
        for party in both
    )
    for party, new in zip(both, anew, strict=True):
        shutil.copy(party.folder / "new.csv", new.folder)
        shutil.copy(party.folder / "party.toml", new.folder)
        party.stop()
        new.start()
    anew[0].granting = [anew[1]]
    try:
        for party, half in zip(anew, halves, strict=True):
            assert cli(party.folder, "model", "import", str(half))["training"] == model
            job = party.call("GET", f"/v1/jobs/{model}").json()
            assert (job["state"], "model_imported" in {notice["code"] for notice in job["notices"]}) == ("done", True)
            again = halves[0].parent / f"{party.name}-again"
            cli(party.folder, "model", "export", model, str(again))
            assert (again / "manifest.json").read_bytes() == (half / "manifest.json").read_bytes()
            page = party.folder / "page.html"
            cli(party.folder, "job", "report", model, "--output", str(page))
        scores = pl.read_csv(both_done(anew, prediction(model))[0]["scores_path"])
        assert np.abs(scores["score"].to_numpy() - expected["score"].to_numpy()).max() < 1e-3
        bundle = tmp_path / "bundle"
        cli(anew[0].folder, "audit", "export", str(bundle))
        verified = subprocess.run([VFL, "audit", "verify", str(bundle)], capture_output=True, check=False, timeout=60)
        assert verified.returncode == 0, verified.stdout
    finally:
        for new in anew:
            new.close()
        for party in both:
            party.start()


def test_a_half_that_the_key_before_has_signed_is_imported_after_a_rotation_and_scores_jointly(
    both: Parties, halves: list[Path], model: str
) -> None:
    telco = both[1]
    answer = telco.call("POST", "/v1/key/rotate")
    assert answer.status_code == 200, answer.text
    shutil.rmtree(telco.folder / "models" / model)
    assert cli(telco.folder, "model", "import", str(halves[1]))["training"] == model
    assert both_done(both, prediction(model))[0]["scores_path"]
