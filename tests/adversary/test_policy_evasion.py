"""A label party whose own rules allow anything asks for more than the feature party has agreed to, between two real
servers: each attempt is refused by the feature party's server, which names the rule and logs it."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from evading_label import ANOTHER, COLUMNS, Two, serving, spec, until, write_folders

from api.demo.training.tables import FEATURE_PARTY, LABEL_PARTY
from parties.settings import load, load_identity
from parties.storage import grants
from parties.storage.engine import Database
from parties.trust.grants import DAY_SECONDS, Grant


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folders(tmp_path)
    return tmp_path


@pytest.fixture
def two(folder: Path) -> Iterator[Two]:
    with serving(folder) as servers:
        yield Two(servers)


def test_what_the_floor_forbids_is_refused_also_where_a_grant_allows_it(two: Two) -> None:
    """Tiny batches isolate rows; batches of a seed that one side chose can repeat; many sums solve for rows."""
    two.feature.grant({"spec": spec(), "uses": "standing", "terms": {"maximum_epochs": 1000, "maximum_rho": 9.0}})
    assert "acceptance.minimum_batch_rows: the smallest batch has" in two.refused(spec(batch_rows="8"))
    assert "acceptance.fixed_seed: job.seed is 3" in two.refused(spec(seed="3"))
    assert "acceptance.maximum_rho: rho is" in two.refused(spec(epochs="40"))
    assert two.feature.ledger()["lines"] == []


def test_a_job_beyond_its_grant_waits_for_the_operator_who_reads_the_rule(two: Two) -> None:
    assert "no grant lets label-party use the data set 'rows'" in two.waits(spec())
    two.feature.grant({"spec": spec(purpose="scores"), "uses": 2})
    other = str([*COLUMNS[:2], ANOTHER])
    for job, rule in (
        (spec(purpose="advertising"), "purpose"),
        (spec(purpose="scores", columns=other), "columns"),
        (spec(purpose="scores", epochs="5"), "maximum_epochs"),
        (spec(purpose="scores", batch_rows="114"), "maximum_opened_values"),
    ):
        assert f"does not cover the job by its rule {rule}: " in two.waits(job)
    assert two.outcome(spec(purpose="scores"))["state"] == "done"


def test_a_grant_is_used_up_and_can_be_taken_back(two: Two) -> None:
    (grant,) = two.feature.grant({"spec": spec(epochs="1")})["grants"]
    assert two.outcome(spec("first", epochs="1"))["state"] == "done"
    assert "by its rule uses: 1 jobs have used it, and 1 is the most" in two.waits(spec("second", epochs="1"))
    (standing,) = two.feature.grant({"spec": spec(epochs="1"), "uses": "standing"})["grants"]
    two.feature.revoke(standing["id"])
    assert f"grant {grant['id']} does not cover the job by its rule uses" in two.waits(spec("third", epochs="1"))


def test_an_expired_grant_and_one_of_another_version_of_the_file_cover_nothing(folder: Path, two: Two) -> None:
    (made,) = two.feature.grant({"spec": spec(), "uses": "standing"})["grants"]
    two.feature.revoke(made["id"])
    own = folder / FEATURE_PARTY
    database, identity = Database(own), load_identity(own, load(own))
    with database.writing() as connection:
        terms = {name: value for name, value in made.items() if name in Grant.__struct_fields__}
        terms |= {name: tuple(terms[name]) for name in ("others", "columns")}
        now = int(time.time())
        expired = Grant(**terms | {"id": "0" * 16}, created=now - 30 * DAY_SECONDS, expires=now - 60)
        grants.add(connection, expired.sign(identity))
    assert "by its rule expires" in two.waits(spec("late"))
    two.feature.grant({"spec": spec(), "uses": "standing"})
    rows = own / "rows.csv"
    rows.write_text(rows.read_text("utf-8") + "\n", "utf-8")
    assert "by its rule dataset_digest" in two.waits(spec("changed"))
    database.close()


def test_ten_jobs_on_the_same_rows_reveal_no_more_than_the_cap_allows_one(two: Two) -> None:
    two.feature.grant({"spec": spec(), "uses": "standing"})
    states = []
    for number in range(10):
        job = two.outcome(spec(f"job {number}"))
        states.append(job["state"])
        if job["state"] == "failed":
            here = two.feature.job(job["id"])["error"]["message"]
            assert f"acceptance.maximum_rho: on the column '{COLUMNS[0]}' of 'rows' {LABEL_PARTY} has used rho" in here
    assert states == ["done", "done", *["failed"] * 8]
    ledger = two.feature.ledger()
    assert {line["column"] for line in ledger["lines"]} == set(COLUMNS)
    assert all(0.03 < line["rho"] <= ledger["maximum_rho"] for line in ledger["lines"])


def test_a_flood_of_proposals_is_cut_off(two: Two) -> None:
    """Each waits for the operator and holds no table; beyond a number no more are taken."""
    jobs = [two.label.submit(spec(f"job {number}"))["id"] for number in range(20)]
    ended = [until(two.label, job, lambda found: found["waits_for"] or found["state"] == "failed") for job in jobs]
    codes = [job["error"]["code"] for job in ended if job["error"]]
    assert codes
    assert set(codes) == {"too_many_jobs"}
    assert sum(job["state"] == "proposed" for job in ended) <= 16
    refused = [detail["code"] for detail in two.audited("refused")]
    assert refused.count("too_many_jobs") == len(codes)
