"""Three and more parties find the rows that all have; nobody learns of a row that only some have."""

from collections.abc import Callable
from functools import reduce
from typing import Any

import msgspec
import pytest
from alignment_parties import align, flows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load

from crypto.blinding import points_of_hashes, split
from vfl.alignment_messages import (
    BlindedList,
    CommonPlaces,
    IdCount,
    ListToBlind,
    PartySizes,
    PlacesBefore,
    WhichPlaces,
)
from vfl.errors import RemoteProtocolError
from vfl.flow import Send, run_together
from vfl.ids import encoded_id, id_hash
from vfl.message import encode

NAMES = ("p0", "p1", "p2", "p3")
SETS = st.lists(
    st.tuples(st.one_of(st.integers(0, 12), st.sampled_from(["7", "a", "é", ""]))), unique_by=encoded_id, max_size=15
)
ONE = (1).to_bytes(32, "little")


def common_of(together: Any, ids: dict[str, list[Any]]) -> dict[str, list[Any]]:
    rows = {party: load(together.results[party].state)["rows"].tolist() for party in ids}
    return {party: [ids[party][row - 1] for row in own] for party, own in rows.items()}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(SETS, min_size=3, max_size=4))
def test_the_common_ids_are_those_of_a_plain_intersection_of_all(sets: list[list[Any]]) -> None:
    ids = dict(zip(NAMES, sets, strict=False))
    together = align(ids)
    found = common_of(together, ids)
    assert len(set(map(tuple, found.values()))) == 1
    assert set(found["p0"]) == reduce(set.intersection, map(set, sets))
    assert len({outcome.result_digest for outcome in together.results.values()}) == 1
    assert {outcome.metrics["common_ids"] for outcome in together.results.values()} == {len(found["p0"])}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(SETS, min_size=3, max_size=3))
def test_only_the_size_is_learned_where_only_the_size_is_told(sets: list[list[Any]]) -> None:
    together = align(dict(zip(NAMES, sets, strict=False)), reveal="size-only")
    for outcome in together.results.values():
        assert outcome.metrics["common_ids"] == len(reduce(set.intersection, map(set, sets)))
        assert load(outcome.state)["rows"].tolist() == []
        assert outcome.result_digest == ""
    assert {"CommonPlaces", "WhichPlaces", "PlacesBefore"}.isdisjoint(line.kind for line in together.transcript)


def test_lists_of_several_batches_and_of_unlike_size_are_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vfl.planning.alignment.BATCH_IDS", 16)
    ids = {
        "p0": [(f"c-{row}",) for row in range(90)],
        "p1": [(f"c-{row}",) for row in range(99, 40, -1)],
        "p2": [(f"c-{row}",) for row in range(30, 130)],
    }
    found = common_of(align(ids), ids)
    assert set(found["p2"]) == {(f"c-{row}",) for row in range(41, 90)}
    assert found["p0"] == found["p1"] == found["p2"]


IDS = {
    "p0": [(f"{of}-{row}",) for of, count in (("all", 40), ("p0-p1", 30), ("p0", 5)) for row in range(count)],
    "p1": [(f"p0-p1-{row}",) for row in range(30)] + [(f"all-{row}",) for row in range(40)],
    "p2": [(f"p2-{row}",) for row in range(35)] + [(f"all-{row}",) for row in range(40)],
}


def test_what_the_coordinator_sees_does_not_tell_of_which_of_its_ids_a_point_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every scalar is one here, so that a list shows its order: the coordinator's comes back to it in another one."""
    monkeypatch.setattr("crypto.blinding.BlindingKey.scalar", lambda _: ONE)
    together = run_together(flows(IDS))
    lists = [line for line in together.transcript if isinstance(line.message, ListToBlind | BlindedList)]
    own = {points_of_hashes(ONE, id_hash(parts)) for parts in IDS["p0"]}
    sent, back = ([line for line in lists if set(_points(line)) == own and line.sender == party] for party in NAMES[:2])
    assert len(sent) == 2  # to the first party, and once more when it has come back
    assert _points(back[0]) != _points(sent[0])
    assert sorted(_points(back[0])) == sorted(_points(sent[0]))


def test_no_party_but_the_coordinator_sees_two_lists_with_a_point_in_common() -> None:
    together = run_together(flows(IDS))
    for party in NAMES[1:3]:
        lists = [
            set(_points(line))
            for line in together.transcript
            if party in {line.sender, line.receiver} and isinstance(line.message, ListToBlind | BlindedList)
        ]
        assert len(set[bytes]().union(*lists)) == sum(map(len, lists))


def test_ids_that_only_some_parties_have_leave_no_trace_in_any_message() -> None:
    together = align(IDS)
    sent = b"".join(encode(line.message) for line in together.transcript if line.message)
    for parts in {parts for own in IDS.values() for parts in own}:
        hashed = id_hash(parts)
        for trace in (parts[0].encode(), hashed[:16], points_of_hashes(ONE, hashed)):
            assert trace not in sent


def deviating(party: str, alter: Callable[[Any], Any]) -> Any:
    roles = flows(IDS)

    def changed(role: Any) -> Any:
        answer = None
        while True:
            try:
                effect = role.send(answer)
            except StopIteration as stop:
                return stop.value
            answer = yield Send(effect.to, alter(effect.message)) if isinstance(effect, Send) else effect

    return run_together(roles | {party: changed(roles[party])})


def altered(kind: type[Any], **changes: Any) -> Callable[[Any], Any]:
    """Every message of this kind, with what a function makes of a field, or another value in it."""

    def alter(message: Any) -> Any:
        if not isinstance(message, kind):
            return message
        made = {name: new(getattr(message, name)) if callable(new) else new for name, new in changes.items()}
        return msgspec.structs.replace(message, **made)

    return alter


@pytest.mark.parametrize(
    ("party", "alter", "reason"),
    [
        (
            "p2",
            altered(BlindedList, points=lambda points: points[:-32] + bytes(32)),
            "p2 sent what is no id: .*identity",
        ),
        ("p1", altered(BlindedList, points=lambda points: points[:-32] + b"\xff" * 32), "p1 sent what is no id"),
        ("p1", altered(BlindedList, points=lambda points: points[:-32]), "p1 sent .* 70 points of 32 were due"),
        ("p1", altered(BlindedList, points=lambda points: points[:-32] + points[:32]), "sent a point twice"),
        ("p2", altered(BlindedList, lap=1), "p2 sent a list of lap 1 in lap 0"),
        ("p2", altered(BlindedList, batch=1), "p2 sent batch 1 of BlindedList where batch 0 was due"),
        ("p2", altered(IdCount, ids=1 << 30), "p2 brings 1073741824 ids"),
        ("p0", altered(PartySizes, ids=(70, 71, 75)), "p0 tells another number of ids of p1"),
        ("p0", altered(PartySizes, ids=(70, 70)), "p0 tells another number of ids of p1"),
        ("p0", altered(ListToBlind, lap=2), "p0 sent a list of lap 2 in lap 1"),
        ("p0", altered(ListToBlind, points=lambda points: points[:-32] + bytes(32)), "p0 sent what is no id"),
        ("p0", altered(CommonPlaces, places=lambda places: places[:-4] + places[:4]), "p0 did not name 40 different"),
        ("p0", altered(CommonPlaces, places=lambda places: places[:-1]), "p0 did not name 39 different places"),
        ("p0", altered(WhichPlaces, places=lambda places: places + b"\xff\0\0\0"), "p0 did not name 40 different"),
        ("p1", altered(PlacesBefore, places=lambda places: places[:-4]), "p1 did not name 40 different places"),
        ("p1", altered(PlacesBefore, places=lambda places: places[:-4] + b"\xff\xff\0\0"), "p1 did not name 40"),
    ],
)
def test_what_no_honest_party_sends_is_refused_and_its_sender_named(
    party: str, alter: Callable[[Any], Any], reason: str
) -> None:
    with pytest.raises(RemoteProtocolError, match=reason):
        deviating(party, alter)


def _points(line: Any) -> list[bytes]:
    return split(line.message.points)
