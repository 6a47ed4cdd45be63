"""The work of an alignment, counted: each party multiplies its own ids and those of every other one."""

from collections.abc import Iterator

from vfl.planning.alignment import PLACE_BYTES, POINT_BYTES, batches
from vfl.planning.work import REPORT, START, Counts, TableRows, Turn, sends
from vfl.spec.alignment import AlignmentSpec
from vfl.spec.sections import PartyId

DIGEST_BYTES = 32
HUNDREDTHS = 100


def work(spec: AlignmentSpec, rows: TableRows) -> Iterator[Turn]:
    ids = {party: float(rows[party]["rows"]) for party in spec.parties}
    yield Turn("start", 1, {party: {START: 1, "ristretto/start": 1} for party in spec.parties})
    yield Turn("steps", 1, {party: {"ristretto/hashed id": own} for party, own in ids.items()}, is_shared=True)
    yield from _of_two(spec, ids) if spec.entry == "alignment" else _of_many(spec, ids)
    steps = min(HUNDREDTHS, 2 * batches(int(max(ids.values()))))
    yield Turn("steps", steps, {party: {REPORT: 1} for party in spec.parties})


def _of_two(spec: AlignmentSpec, ids: dict[PartyId, float]) -> Iterator[Turn]:
    """Both show their points, answer for the other's, and seal each batch before either."""
    messages = max(1, batches(int(max(ids.values()))))
    first, second = spec.parties
    theirs = {first: ids[second], second: ids[first]}
    powers: dict[PartyId, Counts] = {party: {"ristretto/power": number} for party, number in theirs.items()}
    yield Turn("steps", 1, powers, is_shared=True)
    sent = {
        party: sends(party, 4 * messages, POINT_BYTES * (own + theirs[party]) + 2 * messages * DIGEST_BYTES)[party]
        for party, own in ids.items()
    }
    yield Turn("steps", 1, sent)


def _of_many(spec: AlignmentSpec, ids: dict[PartyId, float]) -> Iterator[Turn]:
    """In each lap every party has one list, of another party; the coordinator looks at them and hands them on."""
    coordinator, everybody = spec.coordinator, spec.parties
    handed_on = 0.0
    for lap in range(1, len(everybody)):
        lists = {party: ids[everybody[(at - lap) % len(everybody)]] for at, party in enumerate(everybody)}
        turn: dict[str, Counts] = {party: {"ristretto/power": size} for party, size in lists.items()}
        of_others = sum(lists.values()) - lists[coordinator]
        turn[coordinator]["ristretto/checked id"] = of_others
        handed_on += POINT_BYTES * of_others
        yield Turn("steps", 1, turn, is_shared=True)
    laps, places = len(everybody), PLACE_BYTES * min(ids.values()) if spec.tells_rows else 0.0
    messages = max(1, batches(int(max(ids.values())))) * laps
    for party in everybody[1:]:
        moved = places if party == everybody[1] else 0.0
        yield Turn("steps", 1, sends(party, messages, POINT_BYTES * sum(ids.values()) + moved))
    yield Turn("steps", 1, sends(coordinator, messages * (laps - 1), handed_on + laps * places))
