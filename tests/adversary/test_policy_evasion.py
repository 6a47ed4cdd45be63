"""A label party whose own rules allow anything asks for more than the feature party has agreed to, between two real
servers: each attempt is refused by the feature party's server, which names the rule."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from api.client import Client, JsonObject
from api.demo.folder import write_parties
from api.demo.servers import Servers, free_ports
from api.demo.training.agreement import agree
from api.demo.training.run import PARTIES
from api.demo.training.tables import FEATURE_PARTY, LABEL_PARTY, breast_cancer
from parties.settings import load, load_identity
from parties.storage import grants
from parties.storage.engine import Database
from parties.trust.grants import DAY_SECONDS, Grant

TABLE = breast_cancer()
BOUND_SECONDS = 90.0
COLUMNS, ANOTHER = TABLE.feature_columns[:3], TABLE.feature_columns[5]
ANYTHING = {"minimum_batch_rows": "1", "maximum_rho": "1000.0", "minimum_rows": "2", "fixed_seed": "true"}
FLOOR = {"minimum_batch_rows": "64", "maximum_rho": "0.05", "minimum_rows": "500", "fixed_seed": "false"}


class Two:
    def __init__(self, servers: Servers) -> None:
        self.label, self.feature = servers.client(LABEL_PARTY), servers.client(FEATURE_PARTY)

    def outcome(self, spec: str) -> JsonObject:
        """The job at the label party, once it is over or waits for the feature party's operator."""
        job = self.label.submit(spec)["id"]
        return until(self.label, job, lambda found: found["waits_for"] or found["state"] in {"done", "failed"})

    def refused(self, spec: str) -> str:
        """Why the feature party refuses the job, as its own operator reads it."""
        job = self.outcome(spec)
        assert (job["state"], job["error"]["code"], job["error"]["side"]) == ("failed", "policy_refused", FEATURE_PARTY)
        reason: str = self.feature.job(job["id"])["error"]["message"]
        rule = re.search(r"acceptance\.\w+", reason)
        assert rule is not None
        assert job["error"]["message"].endswith(f"refuses by {rule[0]}")  # no number of the table is told
        return reason

    def waits(self, spec: str) -> str:
        """Why no grant of the feature party covers the job; its operator rejects it then."""
        job = self.outcome(spec)
        assert job["waits_for"] == f"the approval of {FEATURE_PARTY}'s operator"
        here = until(self.feature, job["id"], lambda found: bool(found["waits_for"]))
        assert (here["state"], here["waits_for"]) == ("proposed", "approval")
        (why,) = (e["text"] for e in self.feature.events(job["id"])["events"] if e["kind"] == "waiting")
        self.feature.reject(job["id"], "not agreed")
        over = until(self.label, job["id"], lambda found: found["state"] == "failed")
        assert (over["error"]["code"], over["error"]["side"]) == ("job_rejected", FEATURE_PARTY)
        assert "not agreed" in over["error"]["message"]
        return str(why)


def until(client: Client, job: str, holds: Callable[[JsonObject], Any]) -> JsonObject:
    deadline, after = time.monotonic() + BOUND_SECONDS, 0
    while not holds(found := client.job(job)):
        assert time.monotonic() < deadline, found
        after = client.events(job, after, wait_seconds=1)["last"]
    return found


def spec(name: str = "attack", **changes: str) -> str:
    """A small encrypted job; each run of it adds about 0.018 to the rho of each column."""
    terms = {
        "epochs": "4",
        "batch_rows": "228",
        "columns": str(list(COLUMNS)),
        "seed": '"joint"',
        "purpose": "",
    } | changes
    return f"""
[job]
name = "{name}"
task = "binary"
seed = {terms["seed"]}
purpose = "{terms["purpose"]}"
[roster]
label = "{LABEL_PARTY}"
features = ["{FEATURE_PARTY}"]
[data.{LABEL_PARTY}]
dataset = "rows"
label = "{TABLE.label}"
[data.{FEATURE_PARTY}]
dataset = "rows"
columns = {terms["columns"]}
[train]
epochs = {terms["epochs"]}
batch_rows = {terms["batch_rows"]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ports = free_ports(PARTIES)
    write_parties(tmp_path, TABLE, agree(TABLE, scheme="ckks", epochs=None, seed=0), 0, ports)
    for party, rules in ((LABEL_PARTY, ANYTHING), (FEATURE_PARTY, FLOOR)):
        path = tmp_path / party / "party.toml"
        text = path.read_text("utf-8")
        for rule, value in rules.items():
            text = re.sub(rf"^{rule} = .*\n", "", text, flags=re.MULTILINE) + f"{rule} = {value}\n"
        path.write_text(text, "utf-8")
    return tmp_path


@pytest.fixture
def two(folder: Path) -> Iterator[Two]:
    settings = {party: load(folder / party).server for party in PARTIES}
    ports = {party: (own.operator_port, own.peer_port) for party, own in settings.items()}
    with Servers(folder, ports, LABEL_PARTY) as servers:
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
