"""A label party whose own rules allow anything, and a feature party with the rules as they come: two real servers."""

import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from api.client import Client, JsonObject
from api.demo.folder import write_parties
from api.demo.servers import Servers, free_ports
from api.demo.training.agreement import agree
from api.demo.training.run import PARTIES
from api.demo.training.tables import FEATURE_PARTY, LABEL_PARTY, breast_cancer
from parties.settings import load

TABLE = breast_cancer()
BOUND_SECONDS, LAST_ENTRIES = 90.0, 1000
COLUMNS, ANOTHER = TABLE.feature_columns[:3], TABLE.feature_columns[5]
ANYTHING = {"minimum_batch_rows": "1", "maximum_rho": "1000.0", "minimum_rows": "2", "fixed_seed": "true"}
FLOOR = {"minimum_batch_rows": "64", "maximum_rho": "0.05", "minimum_rows": "500", "fixed_seed": "false"}


class Two:
    """Both operators."""

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
        (ended,) = self.audited("job_ended", job["id"])
        assert ended == {"state": "failed", "code": "policy_refused", "rule": rule[0]}
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
        assert [detail["by"] for detail in self.audited("job_rejected", job["id"])] == ["operator"]
        return str(why)

    def audited(self, event: str, job: str = "") -> list[JsonObject]:
        """What the feature party's audit log tells of such events, of one job or of all."""
        size = self.feature.audit_head()["size"]
        entries = self.feature.audit_entries(max(0, size - LAST_ENTRIES), LAST_ENTRIES)["entries"]
        return [each["detail"] for each in entries if each["event"] == event and job in {"", each["job"]}]


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


def write_folders(folder: Path) -> None:
    """One for each party."""
    ports = free_ports(PARTIES)
    write_parties(folder, TABLE, agree(TABLE, scheme="ckks", epochs=None, seed=0), 0, ports)
    for party, rules in ((LABEL_PARTY, ANYTHING), (FEATURE_PARTY, FLOOR)):
        path = folder / party / "party.toml"
        text = path.read_text("utf-8")
        for rule, value in rules.items():
            text = re.sub(rf"^{rule} = .*\n", "", text, flags=re.MULTILINE) + f"{rule} = {value}\n"
        path.write_text(text, "utf-8")


def serving(folder: Path) -> AbstractContextManager[Servers]:
    settings = {party: load(folder / party).server for party in PARTIES}
    ports = {party: (own.operator_port, own.peer_port) for party, own in settings.items()}
    return Servers(folder, ports, LABEL_PARTY)
