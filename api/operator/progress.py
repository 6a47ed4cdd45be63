"""What a party measured after each epoch or round of a job, few enough points for the curves of a report."""

from typing import Any

from parties.party import Party

MEASURED = ("epoch", "round")
"""Kinds of events that carry measures, and the name of their number."""
MOST_POINTS = 500


def progress(party: Party, job: str) -> list[dict[str, Any]]:
    """Number and measures, evenly thinned where there are many, the last among them. Raises UnknownJob."""
    measured: dict[int, dict[str, Any]] = {}  # a round that is repeated counts once
    after = 0
    while events := party.events(job, after, 0, MEASURED):
        after = events[-1].number
        measured |= {event.data[event.kind]: event.data.get("measures", {}) for event in events}
    apart = max(1, -(-len(measured) // MOST_POINTS))
    return [{"number": number, "measures": measured[number]} for number in sorted(measured)[::-apart][::-1]]
