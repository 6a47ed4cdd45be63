"""`vfl grant`, `vfl job diff`, `approve` and `reject`, and `vfl ledger`, against two real party servers."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from api.demo.folder import write_parties
from api.demo.servers import Servers, free_ports
from api.demo.training.agreement import agree
from api.demo.training.run import PARTIES
from api.demo.training.tables import FEATURE_PARTY, LABEL_PARTY, breast_cancer

Run = Callable[..., tuple[int, str, str]]

TABLE = breast_cancer()
LOOKS = 600


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with both parties, their servers running, and job.toml of a clear job."""
    folder = tmp_path_factory.mktemp("parties")
    ports, agreement = free_ports(PARTIES), agree(TABLE, scheme="none", epochs=2, seed=0)
    write_parties(folder, TABLE, agreement, 0, ports)
    with Servers(folder, ports, LABEL_PARTY):
        yield folder


def data(run: Run, folder: Path, party: str, *arguments: object) -> Any:
    code, out, _ = run(*arguments, "--party", folder / party, "--format", "json")
    answer = json.loads(out)
    assert code == 0, answer
    return answer["data"]


def submit(run: Run, folder: Path) -> str:
    job: str = data(run, folder, LABEL_PARTY, "job", "submit", folder / "job.toml")["id"]
    return job


def until_it_waits(run: Run, folder: Path, job: str) -> Any:
    for _ in range(LOOKS):
        code, out, _ = run("job", "show", job, "--party", folder / FEATURE_PARTY, "--format", "json")
        if code == 0 and (shown := json.loads(out)["data"])["waits_for"]:
            return shown
    raise AssertionError(out)


def test_a_job_is_read_approved_done_and_counted(run: Run, folder: Path) -> None:
    job = submit(run, folder)
    assert until_it_waits(run, folder, job)["waits_for"] == "approval"
    party = ("--party", folder / FEATURE_PARTY)
    shown = run("job", "show", job, *party)[1]
    assert "proposed, waiting for approval" in " ".join(shown.split())
    code, text, err = run("job", "diff", job, *party)
    assert (code, err) == (0, "")
    assert "Since the last job\n  This is the first job of its kind with these parties that is approved here." in text
    assert max(map(len, text.splitlines())) <= 80
    code, out, _ = run("job", "approve", job, *party, "--format", "json")
    assert (code, json.loads(out)["error_code"]) == (4, "invalid_arguments")  # not at a terminal, and without --yes
    code, out, _ = run("job", "approve", job, *party, "--yes", "--reason", "read by two")
    assert (code, out) == (0, f"{job} is approved by the operator of {FEATURE_PARTY}\n")
    code, out, err = run("job", "watch", job, "--party", folder / LABEL_PARTY)
    assert code == 0
    assert f"waiting for the approval of {FEATURE_PARTY}'s operator" in " ".join(err.split())
    shown = " ".join(run("job", "show", job, *party)[1].split())
    assert "approved by this party's operator, " in shown
    assert "read by two" in shown
    code, out, err = run("ledger", *party)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    (line, *_) = data(run, folder, FEATURE_PARTY, "ledger")["lines"]
    assert (line["peer"], line["dataset"], line["open_values"], line["rho"]) == (LABEL_PARTY, "rows", 0, 0.0)
    assert line["values"] > 0
    assert f"{line['values']:,}" in out


def test_a_grant_is_made_listed_used_and_revoked(run: Run, folder: Path) -> None:
    party = ("--party", folder / FEATURE_PARTY)
    made = run("grant", "create", folder / "job.toml", *party, "--uses", "standing", "--days", "2", "--purpose", "")
    assert made[0] == 0
    (grant,) = (
        each for each in data(run, folder, FEATURE_PARTY, "grant", "list")["grants"] if each["uses"] == "standing"
    )
    assert (grant["peer"], grant["purpose"], grant["used"], grant["revoked_at"]) == (LABEL_PARTY, "", 0, None)
    listed = run("grant", "list", *party)[1]
    assert grant["id"] in listed
    job = submit(run, folder)
    assert run("job", "watch", job, "--party", folder / LABEL_PARTY, "--quiet")[0] == 0
    assert f"approved by grant {grant['id']}, " in " ".join(run("job", "show", job, *party)[1].split())
    code, out, err = run("grant", "revoke", grant["id"], *party)
    assert (code, out) == (0, f"grant {grant['id']} is revoked\n")
    assert "It has approved 1 jobs" in err
    code, out, _ = run("grant", "revoke", "0000000000000000", *party, "--format", "json")
    assert (code, json.loads(out)["error_code"]) == (4, "unknown_grant")


def test_a_job_that_waits_can_be_granted_by_its_id_and_is_rejected_with_a_reason(run: Run, folder: Path) -> None:
    party = ("--party", folder / FEATURE_PARTY)
    job = submit(run, folder)
    until_it_waits(run, folder, job)
    (grant,) = data(run, folder, FEATURE_PARTY, "grant", "create", "--job", job)["grants"]
    assert grant["maximum_epochs"] == 2
    code, out, _ = run("job", "reject", job, *party, "--reason", "too late")
    assert (code, out) == (0, f"{job} is rejected\n")
    code, out, _ = run("job", "watch", job, "--party", folder / LABEL_PARTY, "--format", "json")
    answer = json.loads(out)
    assert (code, answer["error_code"]) == (1, "job_rejected")
    assert "too late" in answer["message"]
    code, out, _ = run("job", "reject", job, *party, "--format", "json")
    assert (code, json.loads(out)["error_code"]) == (1, "not_waiting")
    run("grant", "revoke", grant["id"], *party)


@pytest.mark.parametrize(
    "arguments", [(), ("job.toml", "--job", "j"), ("job.toml", "--uses", "many"), ("job.toml", "--uses", "0")]
)
def test_a_grant_names_one_job_and_a_number_of_uses(run: Run, folder: Path, arguments: tuple[str, ...]) -> None:
    named = [folder / "job.toml" if word == "job.toml" else word for word in arguments]
    code, out, _ = run("grant", "create", *named, "--party", folder / FEATURE_PARTY, "--format", "json")
    assert code == 4
    assert json.loads(out)["error_code"] in {"invalid_arguments", "invalid_request"}
