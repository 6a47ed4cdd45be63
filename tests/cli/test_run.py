"""`vfl run` as a person and a script meet it: lines per round, a folder, a report, and going on after an end."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

Run = Callable[..., tuple[int, str, str]]

SPEC = """
job = { name = "digits", protocol = "rounds", task = "multiclass", classes = 10 }
train = { batch_rows = 16, optimiser = { rate = 0.1 } }
[simulation]
dataset = "digits"
clients = 12
partition = { kind = "shards", per_client = 2 }
[model]
network = "mlp"
hidden = [16]
input_shape = [64]
input_range = [0.0, 16.0]
label = "digit"
[rounds]
rounds = 3
clients_per_round = 4
"""

COMPRESSED = SPEC + 'parts = ["compressed_sync"]\n'


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "digits.toml"
    path.write_text(SPEC)
    return path


def answer(out: str) -> Any:
    return json.loads(out)["data"]


def test_a_run_prints_a_line_per_round_and_a_summary_in_eighty_columns(run: Run, spec: Path) -> None:
    code, out, err = run("run", spec)
    assert code == 0
    assert [line.split()[0] for line in err.splitlines()] == ["round", "1/3", "2/3", "3/3"]
    assert out.startswith("digits: 12 clients with 119 to 120 rows, 3 rounds of 4 clients\n")
    assert "held-out rows" in out
    assert "RoundTask down: 12 messages" in out
    assert max(len(line) for line in (out + err).splitlines()) <= 80


def test_quiet_leaves_the_result_alone(run: Run, spec: Path) -> None:
    code, out, err = run("run", spec, "--quiet")
    assert (code, err) == (0, "")
    assert out


def test_the_json_says_what_was_run_what_came_of_it_and_what_it_cost(run: Run, spec: Path) -> None:
    code, out, _ = run("run", spec, "--format", "json", "--quiet")
    data = answer(out)
    assert code == 0
    assert (data["clients"], data["cohort"], data["rounds"], data["parts"]) == (12, 4, 3, [])
    assert data["rows"] == {"clients": 1438, "fewest": 119, "most": 120, "test": 359}
    assert len(data["series"]["accuracy"]) == 3
    assert data["metrics"]["accuracy"] == data["series"]["accuracy"][-1]
    lines = data["bytes"]["by_round"]
    assert [(line["round"], line["kind"]) for line in lines if line["direction"] == "down"] == [
        (1, "RoundTask"),
        (2, "RoundTask"),
        (3, "Published"),
        (3, "RoundTask"),
    ]
    sent = {line["round"]: line["bytes"] for line in lines if line["kind"] == "RoundTask"}
    assert list(sent.values()) == data["series"]["bytes_sent"]
    assert data["bytes"]["up"] == sum(line["bytes"] for line in lines if line["direction"] == "up")
    assert data["folder"] is None


def test_the_result_is_that_of_the_specification_and_not_of_the_number_of_processes(run: Run, spec: Path) -> None:
    one = answer(run("run", spec, "--format", "json", "--quiet")[1])
    two = answer(run("run", spec, "--format", "json", "--quiet", "--processes", "2")[1])
    assert two.pop("processes") == 2
    assert {k: v for k, v in one.items() if k not in {"processes", "seconds"}} == {
        k: v for k, v in two.items() if k != "seconds"
    }


def test_the_folder_holds_model_report_specification_and_a_state_per_round(run: Run, spec: Path) -> None:
    folder = spec.parent / "out"
    data = answer(run("run", spec, "--output", folder, "--format", "json", "--quiet")[1])
    assert json.loads((folder / "report.json").read_text()) == data
    assert (folder / "job.toml").read_text() == SPEC
    assert load_file(folder / "model.safetensors")["head.weight"].shape == (10, 16)
    assert sorted(path.name for path in (folder / "state").iterdir()) == [
        f"round-000{number}.safetensors" for number in (1, 2, 3)
    ]


def interrupted(folder: Path, after: int) -> None:
    """Leave what a run leaves that ends after this round."""
    for number in (1, 2, 3):
        if number > after:
            (folder / "state" / f"round-000{number}.safetensors").unlink()
    progress = json.loads((folder / "progress.json").read_text())
    progress["round"] = after
    progress["lines"] = [line for line in progress["lines"] if line["round"] <= after]
    (folder / "progress.json").write_text(json.dumps(progress))
    (folder / "model.safetensors").unlink()
    (folder / "report.json").unlink()


@pytest.mark.parametrize("text", [SPEC, COMPRESSED], ids=["averaging", "compressed"])
def test_a_resumed_run_equals_the_uninterrupted_one(run: Run, spec: Path, text: str) -> None:
    spec.write_text(text)
    whole = answer(run("run", spec, "--output", "whole", "--format", "json", "--quiet")[1])
    shutil.copytree("whole", "part")
    interrupted(Path("part"), after=1)
    code, out, err = run("run", spec, "--output", "part", "--resume", "--format", "json")
    assert code == 0
    assert [line.split()[0] for line in err.splitlines()] == ["round", "2/3", "3/3"]
    assert Path("part/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()
    differs = {"seconds", "folder"}
    assert {k: v for k, v in answer(out).items() if k not in differs} == {
        k: v for k, v in whole.items() if k not in differs
    }


def test_ctrl_c_says_how_to_go_on(run: Run, spec: Path) -> None:
    spec.write_text(SPEC.replace("rounds = 3", "rounds = 60"))
    command = [sys.executable, "-m", "api.cli.main", "run", str(spec), "--output", "out"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if "2/60" in line)
        process.send_signal(signal.SIGINT)
        *_, said = process.stderr
    assert process.returncode == 130
    assert re.fullmatch(r"interrupted after round \d+; --resume goes on in out\n", said)
    whole = answer(run("run", spec, "--format", "json", "--quiet")[1])
    code, out, _ = run("run", spec, "--output", "out", "--resume", "--format", "json", "--quiet")
    assert code == 0
    assert answer(out)["model_digest"] == whole["model_digest"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux: /proc")
def test_a_killed_run_takes_the_processes_of_its_clients_with_it(spec: Path, tmp_path: Path) -> None:
    spec.write_text(SPEC.replace("rounds = 3", "rounds = 2000"))
    command = [sys.executable, "-m", "api.cli.main", "run", str(spec), "--processes", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if "2/2000" in line)
        clients = children(process.pid)
        process.kill()
    deadline = time.monotonic() + 30
    while (left := [pid for pid in clients if Path(f"/proc/{pid}").exists()]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (len(clients), left) == (2, [])


def children(parent: int) -> list[int]:
    threads = Path(f"/proc/{parent}/task").glob("*/children")
    return [int(pid) for path in threads for pid in path.read_text().split()]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--resume",), "invalid_arguments", "--resume needs --output"),
        (("--output", "."), "simulation_exists", "is not empty"),
        (("--output", "new", "--resume"), "simulation_exists", "no round is finished"),
    ],
)
def test_what_cannot_be_run_says_why_and_what_to_do(
    run: Run, spec: Path, arguments: tuple[str, ...], code: str, text: str
) -> None:
    exit_code, out, _ = run("run", spec, *arguments, "--format", "json")
    failure = json.loads(out)
    assert (exit_code, failure["error_code"]) == (4, code)
    assert text in f"{failure['message']} {failure['hint']}"
    assert failure["hint"]


def test_states_of_another_specification_are_not_gone_on_from(run: Run, spec: Path) -> None:
    run("run", spec, "--output", "out", "--quiet")
    spec.write_text(SPEC.replace("rate = 0.1", "rate = 0.2"))
    code, out, _ = run("run", spec, "--output", "out", "--resume", "--format", "json")
    assert (code, json.loads(out)["error_code"]) == (4, "simulation_exists")


def test_a_specification_between_servers_is_not_simulated(run: Run, spec: Path) -> None:
    spec.write_text(SPEC.replace("[simulation]", "[simulations]"))
    code, out, _ = run("run", spec, "--format", "json")
    assert (code, json.loads(out)["error_code"]) == (4, "invalid_spec")
    assert "no table [simulation]" in json.loads(out)["message"]
    assert run("run", "none.toml")[0] == 4


def test_the_fields_of_a_report_are_documented(run: Run, spec: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    table = page.partition("## A simulation")[2].partition("\n## ")[0]
    documented = [name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in row.split("`")[1::2]]
    assert set(documented) == answer(run("run", spec, "--format", "json", "--quiet")[1]).keys()


CLINIC = """
job = { name = "readmission", protocol = "rounds", task = "binary" }
train = { batch_rows = 32 }
[simulation]
dataset = "visits.csv"
id = "visit"
clients = 3
[rounds]
rounds = 4
[model]
network = "mlp"
hidden = [16]
input_shape = [2]
columns = ["age", "income"]
label = "readmitted"
"""

RANGES = {
    "pooled": "",
    "one each": "input_range = { age = [18, 100], income = [0, 150000] }",
    "one for all": "input_range = [0, 200000]",
}


def test_columns_of_different_scale_are_learned_from_pooled_or_with_a_range_for_each(run: Run, tmp_path: Path) -> None:
    draws = np.random.default_rng(1)
    age, income = draws.uniform(18, 100, 1500).round(), draws.lognormal(10.3, 0.6, 1500).round()
    back = draws.random(1500) < 1 / (1 + np.exp(-0.08 * (age - 59) + 1.5 * (np.log(income) - 10.3)))
    rows = zip(range(1500), age, income, back.astype(int), strict=True)
    lines = [f"{visit},{years:g},{money:g},{label}" for visit, years, money, label in rows]
    (tmp_path / "visits.csv").write_text("\n".join(["visit,age,income,readmitted", *lines]))
    reached = {}
    for way, line in RANGES.items():
        (tmp_path / "clinic.toml").write_text(CLINIC + line)
        reached[way] = answer(run("run", tmp_path / "clinic.toml", "--format", "json", "--quiet")[1])
    auc = {way: data["metrics"]["auc"] for way, data in reached.items()}
    assert auc["pooled"] > 0.8
    assert auc["one each"] > 0.7
    assert reached["pooled"]["metrics"]["accuracy"] > reached["one for all"]["metrics"]["accuracy"] + 0.1
    assert len(reached["pooled"]["series"]["auc"]) == 4
    assert "loss_standstill" not in str(reached["pooled"]["notices"])


def test_a_job_that_has_learned_nothing_says_so(run: Run, spec: Path) -> None:
    spec.write_text(SPEC.replace("rate = 0.1", "rate = 1e-6"))
    data = answer(run("run", spec, "--format", "json", "--quiet")[1])
    (told,) = [notice for notice in data["notices"] if notice["code"] == "loss_standstill"]
    assert told["kind"] == "warning"
    assert "the model has learned next to nothing" in told["text"]
    assert "model.input_range" in told["text"]


OF_REGRESSION = """
job = { name = "progression", protocol = "rounds", task = "regression" }
train = { batch_rows = 16, optimiser = { rate = 0.0001 } }
simulation = { dataset = "diabetes", clients = 4 }
rounds = { rounds = 1 }
model = { network = "mlp", hidden = [4], input_shape = [10], label = "progression" }
"""
AT_CLIENTS = SPEC.replace("clients = 12", 'clients = 12\ntest_at = "clients"')


@pytest.mark.parametrize(
    ("text", "scores"),
    [(SPEC, {"accuracy", "auc"}), (OF_REGRESSION, {"r2"}), (AT_CLIENTS, {"accuracy"})],
    ids=["of several classes", "of a regression", "on rows of the clients"],
)
def test_every_score_has_an_interval_beside_it(run: Run, spec: Path, text: str, scores: set[str]) -> None:
    spec.write_text(text)
    data = answer(run("run", spec, "--format", "json", "--quiet")[1])
    assert data["metrics"].keys() == {"loss", *(f"{name}{end}" for name in scores for end in ("", "_low", "_high"))}
    for name in scores:
        assert data["metrics"][f"{name}_low"] < data["metrics"][name] < data["metrics"][f"{name}_high"]
    assert "few_held_out" not in str(data["notices"])
    code, out, _ = run("run", spec, "--quiet")
    assert code == 0
    tested = data["rows"].get("test") or round(data["series"]["tested_rows"][-1])
    assert out.count("95 % interval") == out.count(f"on {tested} held-out rows") == len(scores)


@pytest.fixture
def visits(run: Run, tmp_path: Path) -> Callable[..., tuple[int, Any]]:
    """Run a job of three clients on a file of these columns; its exit code and its answer."""

    def simulated(**columns: Any) -> tuple[int, Any]:
        rows = zip(*(map(str, values) for values in columns.values()), strict=True)
        lines = [",".join(["visit", *columns]), *(f"v{at}," + ",".join(row) for at, row in enumerate(rows))]
        (tmp_path / "visits.csv").write_text("\n".join(lines))
        names = [name for name in columns if name != "readmitted"]
        text = CLINIC.replace('["age", "income"]', json.dumps(names)).replace("[2]", f"[{len(names)}]")
        (tmp_path / "clinic.toml").write_text(text)
        code, out, _ = run("run", tmp_path / "clinic.toml", "--format", "json", "--quiet")
        return code, json.loads(out)

    return simulated


def test_what_is_worth_a_look_in_a_file_is_told(visits: Callable[..., tuple[int, Any]]) -> None:
    draws = np.random.default_rng(2)
    dose, age = draws.normal(size=400), draws.integers(18, 90, 400)
    dose[::9] = -999
    code, told = visits(age=age, twice=age, dose=dose, ward=["7"] * 400, readmitted=age % 2)
    assert code == 0
    found = {notice["code"]: notice["text"] for notice in told["data"]["notices"]}
    assert "'ward' (7)" in found["constant_column"]
    assert "'twice' is the same as 'age'" in found["repeated_column"]
    assert "-999 in 45 of 400 rows" in found["suspicious_value"]


def test_without_test_rows_of_a_class_the_reason_stands_in_the_place_of_an_auc(
    visits: Callable[..., tuple[int, Any]],
) -> None:
    age = np.arange(300) % 70 + 18
    code, told = visits(age=age, readmitted=(np.arange(300) == 5).astype(int))
    assert code == 0
    assert "auc" not in told["data"]["metrics"]
    found = {notice["code"]: notice["text"] for notice in told["data"]["notices"]}
    assert "none of the 60 test rows is of class 1, so the AUC is not defined" in found["class_not_held_out"]


@pytest.mark.parametrize("values", [("1", "2"), ("-1", "1"), ("N", "Y")])
def test_clients_number_their_classes_alike_so_other_labels_are_refused_with_the_way_out(
    visits: Callable[..., tuple[int, Any]], values: tuple[str, str]
) -> None:
    code, told = visits(age=np.arange(60) + 18, readmitted=values * 30)
    assert (code, told["error_code"]) == (4, "non_numeric_cell" if "Y" in values else "labels_not_binary")
    assert "'readmitted'" in told["message"]
    assert told["hint"]
    if "Y" in values:  # a label cannot be left out, as another column can
        assert told["hint"] == "Encode the labels as the numbers 0 and 1."
