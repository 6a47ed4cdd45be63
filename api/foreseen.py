"""What was foreseen of a job beside what was measured, from the job in the operator API."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from api.sizes import readable_bytes, readable_seconds


class Foreseen(NamedTuple):
    what: str
    forecast: str
    measured: str
    """Empty while the job is not done."""
    share: str
    """The forecast of what was measured."""


def beside_measured(job: dict[str, Any]) -> Iterator[Foreseen]:
    """Nothing where the job was proposed without an estimate, or by a peer."""
    estimate = job["plan"].get("estimate")
    if estimate is None:
        return
    from vfl.message import MESSAGES  # noqa: PLC0415 - a command that shows no job can do without

    sizes = dict.fromkeys(("sent", "received"), 0)
    for line in job["traffic"]:
        sizes[line["direction"]] += line["payload_bytes"] if line["kind"] in MESSAGES else 0
    own = estimate["bytes_sent"][job["party"]]
    # Every message of a job has its coordinator at one end.
    of_peers = [size for party, size in estimate["bytes_sent"].items() if party != job["party"]]
    yield _foreseen(job, "time", estimate["seconds"], job["seconds"]["training"], readable_seconds)
    yield _foreseen(job, "sent", own, sizes["sent"], readable_bytes)
    yield _foreseen(job, "received", sum(of_peers), sizes["received"], readable_bytes)


def _foreseen(job: dict[str, Any], what: str, forecast: float, measured: float | None, readable: Any) -> Foreseen:
    if job["state"] != "done" or not measured:
        return Foreseen(what, readable(forecast), "", "")
    return Foreseen(what, readable(forecast), readable(measured), f"{forecast / measured:.0%}")
