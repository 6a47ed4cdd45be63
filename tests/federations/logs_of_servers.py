"""The audit logs of two real servers that have worked together."""

import time
from pathlib import Path
from typing import Any

from faulty_line import LABEL

from api.client import Client
from parties.trust import verifier

SETTLED_SECONDS = 40.0

Json = dict[str, Any]
Two = dict[str, Any]
"""Both servers by the names of their parties, the label party first."""


def trained(two: Two, spec: str, state: str = "done") -> str:
    """A job that is over at both sides."""
    job: str = two[LABEL].submit(spec)["id"]
    assert [party.over(job)["state"] for party in two.values()] == [state, state]
    return job


def head(party: Any) -> Json:
    found: Json = party.call("GET", "/v1/audit/head").json()
    return found


def settle(two: Two) -> None:
    """Both logs are at rest, and each party has cosigned all of the other's."""
    deadline = time.monotonic() + SETTLED_SECONDS
    before: list[Json] = []
    while True:
        heads = [head(party) for party in two.values()]
        if heads == before and all(size == each["size"] for each in heads for size in each["cosigned"].values()):
            return
        assert time.monotonic() < deadline, heads
        before = heads
        time.sleep(0.3)


def export(two: Two, folder: Path) -> list[Path]:
    folders = [folder / name for name in two]
    for party, own in zip(two.values(), folders, strict=True):
        with Client(party.operator, party.token) as client:
            client.export_audit(own)
    return folders


def problems(folders: list[Path]) -> list[str]:
    return [str(problem) for problem in verifier.check_all(folders, {})[1]]


def entries(party: Any) -> list[Json]:
    found: list[Json] = party.call("GET", "/v1/audit/entries", params={"limit": 1000}).json()["entries"]
    return found
