"""How a demonstration ends: each audit log is exported, and the coordinator's is verified against all others."""

import time
from collections.abc import Sequence
from pathlib import Path

from api.client import JsonObject
from api.demo.servers import Servers
from parties.trust.verifier import check_all

BUNDLE = "audit-bundle"
COSIGNED_SECONDS = 20.0
LOOK_SECONDS = 0.2


def export_and_verify(servers: Servers, parties: Sequence[str], folder: Path) -> JsonObject:
    """Of parties whose first one is the coordinator; leaves `PARTY/audit-bundle` in the folder."""
    _await_cosignatures(servers, parties)
    bundles = {party: folder / party / BUNDLE for party in parties}
    for party, bundle in bundles.items():
        servers.client(party).export_audit(bundle)
    coordinator, *others = bundles.values()
    checked = [check_all([coordinator, other], {}) for other in others]
    problems = list(dict.fromkeys(str(problem) for _, of_pair in checked for problem in of_pair))
    entries = {each.party: len(each.leaves) for bundles, _ in checked for each in bundles}
    return {"entries": entries, "verified": not problems, "line": _line(list(entries.values()), problems)}


def _line(entries: list[int], problems: list[str]) -> str:
    """For people."""
    *first, last = map(str, entries)
    counts = f"{', '.join(first)} and {last} entries"
    if problems:
        return f"{counts}, NOT verified: {problems[0]}"
    return f"{counts}, {'both' if len(first) == 1 else 'all'} logs verify against each other"


def _await_cosignatures(servers: Servers, parties: Sequence[str]) -> None:
    """Logs at rest that each peer has cosigned: a bundle must not be older than what its peer's one shows of it.

    If it takes too long the verification tells what is missing.
    """
    deadline, before = time.monotonic() + COSIGNED_SECONDS, list[JsonObject]()
    while time.monotonic() < deadline:
        heads = [servers.client(party).audit_head() for party in parties]
        if heads == before and all(size == head["size"] for head in heads for size in head["cosigned"].values()):
            return
        before = heads
        time.sleep(LOOK_SECONDS)
