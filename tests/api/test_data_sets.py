"""Data sets by command line and HTTP: added while the server runs, and used by the next job."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import VFL, free_ports, run

LABEL, FEATURE = "label-party", "feature-party"


@pytest.fixture(scope="module")
def servers(
    new_party: Callable[..., Any], files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Any, Any]]:
    """(label party, feature party), running; their policies allow `patients` and `clinic`."""
    root, ports = tmp_path_factory.mktemp("data_sets"), free_ports(4)
    urls = {LABEL: f"https://127.0.0.1:{ports[1]}", FEATURE: f"https://127.0.0.1:{ports[3]}"}
    label = new_party(root / LABEL, LABEL, {FEATURE: urls[FEATURE]}, {"patients": "none.csv"}, ports[:2])
    feature = new_party(root / FEATURE, FEATURE, {LABEL: urls[LABEL]}, {"clinic": "none.csv"}, ports[2:])
    for server, file, name in ((label, files[0], "patients.csv"), (feature, files[1], "clinic.csv")):
        (server.folder / name).write_bytes(file.read_bytes())
        server.start()
    label.granting = [feature]
    yield label, feature
    label.close()
    feature.close()


@pytest.fixture
def two(servers: tuple[Any, Any]) -> tuple[Any, Any]:
    """The same, without any data set."""
    for server in servers:
        for dataset in server.call("GET", "/v1/datasets").json()["datasets"]:
            server.call("DELETE", f"/v1/datasets/{dataset['name']}")
    return servers


def vfl(server: Any, *arguments: str) -> Any:
    return run(server.folder, "data", *arguments)


def added(server: Any, name: str, source: str, **more: Any) -> Any:
    return server.call("POST", "/v1/datasets", json={"name": name, "source": source, "id": ["id"], **more})


def test_a_job_uses_data_sets_that_were_added_while_the_servers_ran(
    two: tuple[Any, Any], job_spec: Callable[..., str]
) -> None:
    label, feature = two
    refused = label.call("POST", "/v1/jobs", json={"spec": job_spec(epochs="1")})
    assert (refused.status_code, refused.json()["code"]) == (404, "unknown_dataset")
    made = vfl(label, "add", "patients", "patients.csv", "--id", "id", "--label", "y")
    assert (made["rows"], made["columns"], made["source"]) == (569, 12, str(label.folder / "patients.csv"))
    answer = added(feature, "clinic", "clinic.csv")
    assert answer.status_code == 201, answer.text
    done = label.over(label.submit(job_spec(epochs="1"))["id"])
    assert done["state"] == "done", done["error"]
    grant = feature.call("GET", "/v1/grants").json()["grants"][0]
    assert grant["dataset_digest"] == answer.json()["digest"]


def test_a_data_set_is_listed_profiled_and_taken_away(two: tuple[Any, Any]) -> None:
    label, _ = two
    assert vfl(label, "list") == {"datasets": []}
    vfl(label, "add", "patients", "patients.csv", "--id", "id")
    (listed,) = vfl(label, "list")["datasets"]
    assert (listed["name"], listed["id"], listed["text"]["separator"]) == ("patients", ["id"], ",")
    assert label.call("GET", "/v1/datasets/patients").json() == listed
    profile = vfl(label, "profile", "patients")
    assert [column["type"] for column in profile["columns"]] == ["text", *["number"] * 11]
    assert label.call("GET", "/v1/datasets/patients/profile").json() == profile
    again = added(label, "patients", "patients.csv")
    assert (again.status_code, again.json()["code"]) == (409, "dataset_known")
    assert added(label, "patients", "patients.csv", replace=True).status_code == 201
    assert vfl(label, "remove", "patients")["name"] == "patients"
    assert vfl(label, "list") == {"datasets": []}
    assert (label.folder / "patients.csv").is_file()
    gone = label.call("GET", "/v1/datasets/patients/profile")
    assert (gone.status_code, gone.json()["code"]) == (404, "unknown_dataset")


def test_the_name_of_a_file_is_listed_in_80_columns_however_long_its_path(two: tuple[Any, Any], tmp_path: Path) -> None:
    label, _ = two
    place = tmp_path / ("a_long_name_of_a_folder_" * 4) / "patients_of_the_year.csv"
    place.parent.mkdir()
    place.write_bytes((label.folder / "patients.csv").read_bytes())
    vfl(label, "add", "patients", str(place), "--id", "id")
    shown = subprocess.run([VFL, "data", "list"], cwd=label.folder, capture_output=True, text=True, check=True).stdout
    assert place.name in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_a_made_up_table_replaces_no_file_unasked(two: tuple[Any, Any], tmp_path: Path) -> None:
    label, _ = two
    vfl(label, "add", "patients", "patients.csv", "--id", "id")
    mock = ("data", "mock", "patients", "--output", str(tmp_path / "mine.csv"), "--format", "json")
    (tmp_path / "mine.csv").write_text("mine")
    refused = subprocess.run([VFL, *mock], cwd=label.folder, capture_output=True, text=True, check=False)
    assert (refused.returncode, json.loads(refused.stdout)["error_code"]) == (4, "file_exists")
    assert (tmp_path / "mine.csv").read_text() == "mine"
    subprocess.run([VFL, *mock, "--force"], cwd=label.folder, capture_output=True, check=True)
    assert (tmp_path / "mine.csv").read_text().startswith("id,")


def test_words_and_gaps_are_trained_on_ciphertexts_where_the_job_prepares_them(
    two: tuple[Any, Any], job_spec: Callable[..., str]
) -> None:
    """A column of words, and one in which every tenth cell says NA."""
    label, feature = two
    header, *rows = (feature.folder / "clinic.csv").read_text().splitlines()
    cells = [row.split(",") for row in rows]
    for at, row in enumerate(cells):
        row[2] = "NA" if at % 10 == 0 else row[2]
        row.append(["large", "middle", "small"][min(2, int(float(row[1]) // 8))])
    lines = [f"{header},size", *map(",".join, cells)]
    (feature.folder / "words.csv").write_text("\n".join(lines) + "\n")
    added(label, "patients", "patients.csv")
    told = added(feature, "clinic", "words.csv").json()
    assert told["missing"] == ["NA"]
    columns = 'columns = ["x0", "x1", "size"]'
    spec = re.sub(r'columns = \["x0".*\]', columns, job_spec(epochs="2", scheme='"ckks"', batch_rows="200"))
    refused = label.over(label.submit(spec)["id"])
    assert (refused["state"], refused["error"]["code"]) == ("failed", "invalid_data")
    assert "large" not in str(refused["error"])
    entries = """prepare = [
  { columns = ["size"], kind = "one_hot", categories = 2 },
  { kind = "quantile", missing = "median" },
]
"""
    prepared = spec.replace(f"{columns}\n", f"{columns}\n{entries}")
    done = label.over(label.submit(prepared)["id"])
    assert done["state"] == "done", done["error"]
    assert done["metrics"]["auc"] > 0.9
    assert done["plan"]["opened_per_step"] == 10 + 2 + 2 * 2 + 1
    own = feature.over(done["id"])
    codes = {notice["code"] for notice in own["notices"]}
    assert {"categories", "gaps_filled"} <= codes
    assert not {"categories", "gaps_filled"} & {notice["code"] for notice in done["notices"]}


def test_data_sets_outlive_a_restart_of_the_server(two: tuple[Any, Any]) -> None:
    label, _ = two
    vfl(label, "add", "patients", "patients.csv", "--id", "id")
    before = vfl(label, "list")
    label.stop()
    label.start()
    assert vfl(label, "list") == before


def test_a_semicolon_file_with_decimal_commas_trains_like_the_usual_one(
    two: tuple[Any, Any], job_spec: Callable[..., str]
) -> None:
    label, feature = two
    usual = (feature.folder / "clinic.csv").read_text()
    (feature.folder / "excel.csv").write_bytes(usual.replace(",", ";").replace(".", ",").encode("utf-16"))
    added(label, "patients", "patients.csv")
    aucs = []
    for source in ("clinic.csv", "excel.csv"):
        answer = added(feature, "clinic", source, replace=True)
        assert answer.status_code == 201, answer.text
        done = label.over(label.submit(job_spec(epochs="1"))["id"])
        assert done["state"] == "done", done["error"]
        aucs.append(done["metrics"]["auc"])
    assert aucs[0] == aucs[1]
    (guess,) = answer.json()["notices"]
    assert (guess["kind"], guess["code"]) == ("guess", "text_format")


def test_a_label_is_no_input_whoever_asks_and_a_peer_does_not_learn_why(
    two: tuple[Any, Any], job_spec: Callable[..., str]
) -> None:
    label, feature = two
    added(label, "patients", "patients.csv")
    added(feature, "clinic", "clinic.csv", label="x3")
    feature.grant(job_spec())
    job = label.submit(job_spec())["id"]
    failed = label.over(job)
    assert (failed["state"], failed["error"]["code"]) == ("failed", "invalid_data")
    assert "x3" not in str(failed["error"])
    own = feature.over(job)["error"]
    assert own["code"] == "label_among_inputs"
    assert "'x3'" in own["message"]


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ({"name": "a b"}, 422, "invalid_dataset"),
        ({"source": "nowhere.csv"}, 422, "unknown_file"),
        ({"id": ["ID"]}, 422, "unknown_column"),
        ({"id": []}, 422, "invalid_dataset"),
        ({"encoding": "klingon"}, 422, "unreadable_file"),
        ({"decimal": "x"}, 422, "invalid_request"),
        ({"colour": "red"}, 422, "invalid_request"),
    ],
)
def test_what_cannot_be_added_is_refused_by_name_and_nothing_is_stored(
    two: tuple[Any, Any], asked: dict[str, Any], status: int, code: str
) -> None:
    label, _ = two
    answer = label.call("POST", "/v1/datasets", json={"name": "p", "source": "patients.csv", "id": ["id"], **asked})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert vfl(label, "list") == {"datasets": []}
