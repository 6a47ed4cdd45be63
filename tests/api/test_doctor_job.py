"""`vfl doctor PEER --spec FILE`: whether a job that nobody has proposed yet could run at both sides."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from command_line import ROOT, VFL
from faulty_line import FEATURE, LABEL
from identities import tls_of

from parties.doctor.half import JOBS, Question
from vfl.kinds import kind_of, read_spec

BOUND_SECONDS = 60
HERE_FITS, THERE_FITS = "data and limits here", "data and limits there"
HERE_APPROVES, THERE_APPROVES = "approval here", "approval there"

Findings = dict[str, dict[str, str]]
Two = dict[str, Any]


@pytest.fixture
def two(
    tmp_path: Path, new_party: Callable[..., Any], some_ports: Callable[[int], list[int]], files: tuple[Path, Path]
) -> Iterator[Two]:
    ports = some_ports(4)
    urls = {LABEL: f"https://127.0.0.1:{ports[1]}", FEATURE: f"https://127.0.0.1:{ports[3]}"}
    with ExitStack() as stack:
        label = new_party(tmp_path / LABEL, LABEL, {FEATURE: urls[FEATURE]}, {"patients": str(files[0])}, ports[:2])
        feature = new_party(tmp_path / FEATURE, FEATURE, {LABEL: urls[LABEL]}, {"clinic": str(files[1])}, ports[2:])
        for party in (label, feature):
            stack.callback(party.close)
            party.start()
        yield {LABEL: label, FEATURE: feature}


def look(party: Any, peer: str, spec: str) -> Findings:
    answer = party.call("POST", f"/v1/doctor/{peer}/job", json={"spec": spec})
    assert answer.status_code == 200, answer.text
    return {each["check"]: each for each in answer.json()["findings"]}


def results(findings: Findings) -> dict[str, str]:
    return {check: each["result"] for check, each in findings.items()}


def test_without_a_grant_the_owner_of_the_data_would_be_asked_and_with_one_every_line_is_ok(
    two: Two, job_spec: Callable[..., str]
) -> None:
    spec = job_spec()
    of_label, of_feature = look(two[LABEL], FEATURE, spec), look(two[FEATURE], LABEL, spec)
    assert results(of_label) == {
        "specification": "ok",
        HERE_FITS: "ok",
        HERE_APPROVES: "ok",
        THERE_FITS: "ok",
        THERE_APPROVES: "warning",
    }
    assert of_label[THERE_APPROVES]["side"] == FEATURE
    assert (of_feature[HERE_APPROVES]["result"], of_feature[THERE_APPROVES]["result"]) == ("warning", "ok")
    assert f"no grant lets {LABEL} use" in of_feature[HERE_APPROVES]["text"]
    assert "no grant lets" not in json.dumps(of_label)  # why none covers it is for its owner alone
    assert two[FEATURE].call("GET", "/v1/jobs").json()["jobs"] == []  # nobody has proposed anything
    assert two[FEATURE].grant(spec).status_code == 201
    for party, peer in ((LABEL, FEATURE), (FEATURE, LABEL)):
        assert set(results(look(two[party], peer, spec)).values()) == {"ok"}


def test_what_the_peer_would_refuse_is_told_as_to_a_proposal(two: Two, job_spec: Callable[..., str]) -> None:
    ours, heading, theirs = job_spec().partition(f"[data.{FEATURE}]")
    for old, new, found in (
        ('"x0"', '"secret"', "table does not fit the job; its operator sees where"),
        ('"clinic"', '"other"', "acceptance.datasets"),
    ):
        spec = f"{ours}{heading}{theirs.replace(old, new)}"
        of_label, of_feature = look(two[LABEL], FEATURE, spec), look(two[FEATURE], LABEL, spec)
        told = of_label[THERE_FITS]
        assert (of_label[HERE_FITS]["result"], told["result"], told["side"]) == ("ok", "failed", FEATURE)
        assert found in told["text"]
        assert of_label[THERE_APPROVES]["result"] == "not checked"
        assert of_feature[HERE_FITS]["result"] == "failed"
        assert new.strip('"') in of_feature[HERE_FITS]["text"]  # its own operator reads all of it


def test_limits_of_this_side_are_named_with_their_rule(two: Two, job_spec: Callable[..., str]) -> None:
    line = look(two[LABEL], FEATURE, job_spec(scheme='"ckks"', epochs="1000"))[HERE_FITS]
    assert (line["result"], line["side"]) == ("failed", "here")
    assert "acceptance." in line["text"] + line["fix"]


def test_a_specification_that_cannot_be_is_a_line_and_no_error(two: Two, job_spec: Callable[..., str]) -> None:
    for spec, peer, found in (
        ("[job", FEATURE, "TOML"),
        ("[job]\nname = 1", FEATURE, "job"),
        (job_spec(), "shop", "shop is no party of the job"),
    ):
        findings = look(two[LABEL], peer, spec)
        assert findings.pop("specification")["result"] == "failed", found
        assert set(results(findings).values()) == {"not checked"}


def test_the_command_shows_it_below_the_other_lines_and_the_page_lists_each(
    two: Two, job_spec: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "job.toml").write_text(job_spec())
    command = [VFL, "doctor", FEATURE, "--spec", "job.toml", "--party", LABEL, "--format", "json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=BOUND_SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    checks = [each["check"] for each in json.loads(done.stdout)["data"]["findings"] if each["area"] == "job"]
    section = (ROOT / "docs" / "doctor.md").read_text("utf-8").partition("## Job")[2].partition("\n## ")[0]
    assert checks == [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")]
    alone = [VFL, "doctor", "--spec", "job.toml"]
    done = subprocess.run(alone, cwd=tmp_path, capture_output=True, text=True, timeout=BOUND_SECONDS, check=False)
    assert done.returncode == 4
    assert "--spec needs PEER" in done.stderr


def test_a_peer_asks_about_jobs_so_often_and_not_more(two: Two, job_spec: Callable[..., str]) -> None:
    spec = read_spec(job_spec())
    body = msgspec.msgpack.encode(Question(bytes(16), spec=kind_of(spec).resolve(spec).encoded()))
    with httpx.Client(verify=tls_of(LABEL, FEATURE), trust_env=False, timeout=BOUND_SECONDS) as client:
        answers = [client.post(f"{two[FEATURE].peer}/peer/v1/check", content=body) for _ in range(2 * JOBS)]
    limited = [answer for answer in answers if answer.status_code == 429]
    assert len(limited) >= JOBS // 2
    assert limited[0].json()["code"] == "too_many_checks"
    log = (two[FEATURE].folder / "server.log").read_text()
    assert f"{LABEL} asked whether the job breast-cancer could run: nothing refuses it" in log
