"""`vfl estimate`, and what `vfl job submit` asks at a terminal, against two real party servers."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import at_terminal

from api.demo.folder import write_parties
from api.demo.servers import Servers, free_ports
from api.demo.training.agreement import agree
from api.demo.training.run import PARTIES
from api.demo.training.tables import FEATURE_PARTY, LABEL_PARTY, breast_cancer

Run = Callable[..., tuple[int, str, str]]

TABLE = breast_cancer()
AGREEMENT = agree(TABLE, scheme="none", epochs=1, seed=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Both parties, their servers running, and a specification."""
    folder, ports = tmp_path_factory.mktemp("parties"), free_ports(PARTIES)
    write_parties(folder, TABLE, AGREEMENT, 0, ports)
    (folder / "job.toml").write_text(AGREEMENT.text, "utf-8")
    with Servers(folder, ports, PARTIES[0]) as servers:
        servers.grant(AGREEMENT.text)
        yield folder


def answer(run: Run, *arguments: object) -> Any:
    code, out, err = run(*arguments, "--format", "json")
    assert code == 0, err
    return json.loads(out)["data"]


def test_a_job_is_estimated_then_proposed_and_its_report_sets_the_forecast_beside_what_was_measured(
    run: Run, folder: Path
) -> None:
    spec, label = folder / "job.toml", folder / LABEL_PARTY
    foreseen = answer(run, "estimate", spec, "--party", label, "--together")
    assert foreseen["seconds"] == pytest.approx(sum(foreseen["phases"].values()))
    assert foreseen["bytes_sent"][FEATURE_PARTY] == sum(AGREEMENT.plan.payload_bytes.values())
    assert foreseen["opened_values"][LABEL_PARTY] > foreseen["opened_values"][FEATURE_PARTY]
    assert foreseen["security_bits"] == 0
    assert any("share its" in sentence for sentence in foreseen["assumed"])
    assert any("as many rows" in sentence for sentence in foreseen["assumed"])  # what is guessed is said
    assert (label / "calibration.json").exists()

    larger = answer(run, "estimate", spec, "--party", label, "--rows", 10 * TABLE.rows)
    assert f"Every table has {10 * TABLE.rows:,} rows, as was said." in larger["assumed"]
    assert larger["bytes_sent"][FEATURE_PARTY] > 9 * foreseen["bytes_sent"][FEATURE_PARTY]
    assert not any("as many rows" in sentence for sentence in larger["assumed"])

    answer(run, "estimate", spec, "--party", label)
    job = answer(run, "job", "submit", spec, "--party", label)["id"]
    assert run("job", "watch", job, "--party", label, "--quiet")[0] == 0
    shown = answer(run, "job", "show", job, "--party", label)
    assert shown["plan"]["estimate"]["bytes_sent"] == foreseen["bytes_sent"]
    assert "foreseen time" in run("job", "show", job, "--party", label)[1]
    code, out, _ = run("job", "report", job, "--party", label)
    page = Path(out.strip()).read_text("utf-8")
    assert (code, "What was foreseen" in page, "forecast of measured" in page) == (0, True, True)
    assert "foreseen" not in run("job", "show", job, "--party", folder / FEATURE_PARTY)[1]  # it did not propose it


def test_at_a_terminal_the_estimate_is_read_before_the_job_is_proposed(run: Run, folder: Path) -> None:
    label = folder / LABEL_PARTY
    before = answer(run, "job", "list", "--party", label)["jobs"]
    code, shown = at_terminal(label, "no", "job", "submit", str(folder / "job.toml"))
    assert (code, "per second" in shown, "Propose this job?" in shown) == (4, True, True)
    assert answer(run, "job", "list", "--party", label)["jobs"] == before
    code, shown = at_terminal(label, "yes", "job", "submit", str(folder / "job.toml"))
    assert (code, "Follow it with" in shown) == (0, True)


def test_a_specification_that_no_job_can_be_made_of_is_refused_as_by_a_submit(
    run: Run, tmp_path: Path, folder: Path
) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(AGREEMENT.text.replace("batch_rows = ", "batch_row = "), "utf-8")
    refused = [
        json.loads(run(*command, wrong, "--party", folder / LABEL_PARTY, "--format", "json")[1])
        for command in (("estimate",), ("job", "submit"))
    ]
    assert refused[0]["error_code"] == refused[1]["error_code"] == "invalid_spec"
    assert refused[0]["message"] == refused[1]["message"]
