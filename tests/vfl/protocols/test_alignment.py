"""Two parties find their common rows exactly, and nothing of any other row leaves them."""

import hashlib
import unicodedata
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import numpy as np
import pytest
from alignment_parties import FIRST, OTHER, align, flows, specification
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load

from crypto.blinding import BlindingKey, blind_points, points_of_hashes, seal, split
from vfl.alignment_messages import (
    BlindedIds,
    CommonDigest,
    DoubleBlindedIds,
    IdCount,
    SealedBatch,
    ShuffledDoubleBlindedIds,
)
from vfl.errors import RemoteProtocolError
from vfl.flow import Delivery, Receive, Send, run_together
from vfl.ids import encoded_id, id_hash
from vfl.message import Message, encode

WORDS = ["", "a", "A", "007", "7", "é", unicodedata.normalize("NFD", "é"), "a b", "\u200b", "x" * 70, "☕", "7 "]
PARTS = st.one_of(st.sampled_from(WORDS), st.integers(-3, 20), st.text(max_size=3))
SETS = st.lists(st.tuples(PARTS), unique_by=encoded_id, max_size=25)
COMPOSITES = st.lists(st.tuples(PARTS, PARTS), unique_by=encoded_id, max_size=15)


def rows_of(together, party):
    return load(together.results[party].state)["rows"].tolist()


def common_of(together, ids: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """The ids that each party's result names, in its order."""
    return {party: [ids[party][row - 1] for row in rows_of(together, party)] for party in (FIRST, OTHER)}


def told_apart(ids: Iterable[Any]) -> set[Any]:
    """As a plain set: Python itself takes 1 and True for one, and never 7 and "7"."""
    return set(ids)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(st.tuples(SETS, SETS), st.tuples(COMPOSITES, COMPOSITES)))
def test_the_common_ids_are_those_of_a_plain_set_intersection(both):
    ids = dict(zip((FIRST, OTHER), both, strict=True))
    together = align(ids)
    found = common_of(together, ids)
    assert found[FIRST] == found[OTHER]
    assert set(found[FIRST]) == told_apart(ids[FIRST]) & told_apart(ids[OTHER])
    digests = {together.results[party].result_digest for party in ids}
    assert len(digests) == 1
    assert together.results[FIRST].metrics["common_ids"] == len(found[FIRST])


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SETS, SETS)
def test_only_the_size_is_learned_where_only_the_size_is_told(first, second):
    together = align({FIRST: first, OTHER: second}, reveal="size-only")
    for party in (FIRST, OTHER):
        outcome = together.results[party]
        assert outcome.metrics["common_ids"] == len(set(first) & set(second))
        assert rows_of(together, party) == []
        assert outcome.result_digest == ""
    assert {line.kind for line in together.transcript}.isdisjoint({"DoubleBlindedIds"})


def test_sets_of_several_batches_and_of_unlike_size_are_aligned(monkeypatch):
    monkeypatch.setattr("vfl.planning.alignment.BATCH_IDS", 16)
    ids = {FIRST: [(f"c-{row}",) for row in range(100)], OTHER: [(f"c-{row}",) for row in range(97, 60, -1)]}
    together = align(ids)
    found = common_of(together, ids)
    assert found[FIRST] == found[OTHER]
    assert len(found[FIRST]) == 37
    blinded = [line for line in together.transcript if line.kind == "BlindedIds"]
    assert [line.sender for line in blinded] == [FIRST, OTHER] * 7


def test_a_number_and_its_digits_are_two_ids():
    ids: dict[str, list[Any]] = {FIRST: [(7,), ("8",)], OTHER: [("7",), ("8",)]}
    assert common_of(align(ids), ids)[FIRST] == [("8",)]


def test_the_parts_of_an_id_cannot_be_cut_in_another_place():
    ids = {FIRST: [("ab", "c"), ("x", "y")], OTHER: [("a", "bc"), ("x", "y")]}
    assert common_of(align(ids), ids)[OTHER] == [("x", "y")]


def test_the_order_is_that_of_neither_table_and_another_one_in_each_run():
    ids = [(f"c-{row}",) for row in range(200)]
    orders = [rows_of(align({FIRST: ids, OTHER: ids}), FIRST) for _ in range(2)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(1, 201))
    assert orders[0] != orders[1]
    assert orders[0] != sorted(orders[0])


def test_points_are_shown_in_an_order_that_is_not_the_tables_own(monkeypatch):
    """Else a position would tell where in its owner's file a common row stands."""
    one = (1).to_bytes(32, "little")
    monkeypatch.setattr("crypto.blinding.BlindingKey.scalar", lambda _: one)
    ids = [(f"c-{row}",) for row in range(200)]
    together = align({FIRST: ids, OTHER: ids})
    points = [points_of_hashes(one, id_hash(parts)) for parts in ids]
    for shown in (line.message for line in together.transcript if line.kind == "BlindedIds"):
        order = [points.index(point) for point in _points(shown) if point in points]
        assert sorted(order) == list(range(200))
        assert order != sorted(order)


def test_every_run_has_fresh_scalars():
    ids = [(f"c-{row}",) for row in range(20)]
    seen = [
        {point for line in align({FIRST: ids, OTHER: ids}).transcript for point in _points(line.message)}
        for _ in range(2)
    ]
    assert not seen[0] & seen[1]


def test_ids_that_one_side_alone_has_leave_no_trace_in_any_message():
    """No id, no hash of one, and no point that anybody could make from an id without a scalar."""
    common = [(f"common-{row}",) for row in range(30)]
    lone = {party: [(f"secret-{party}-{row}",) for row in range(40)] for party in (FIRST, OTHER)}
    together = align({party: common + lone[party] for party in lone})
    sent = b"".join(encode(line.message) for line in together.transcript if line.message)
    one = (1).to_bytes(32, "little")
    for party, ids in lone.items():
        result = msgspec.msgpack.encode(together.results[OTHER if party == FIRST else FIRST])
        for parts in ids:
            hashed = id_hash(parts)
            plain = (parts[0].encode(), hashed, hashed[:16], hashed.hex().encode(), points_of_hashes(one, hashed))
            digests = [hashlib.new(name, parts[0].encode()).digest() for name in ("md5", "sha1", "sha256", "sha512")]
            for trace in (*plain, *digests):
                assert trace not in sent
                assert trace not in result


def test_what_lone_ids_leave_is_as_random_as_points_of_no_id():
    """Every point that crosses is met once, but for the common ones, which both sides make."""
    ids = {FIRST: [(f"a-{row}",) for row in range(50)], OTHER: [(f"b-{row}",) for row in range(50)]}
    points = [point for line in align(ids).transcript for point in _points(line.message)]
    assert len(points) == len(set(points)) == 4 * 51


# -- a peer that deviates


class Deviating:
    """The other party plays its role, and what it sends is changed on its way."""

    def __init__(self, change: Callable[[Any], Any]) -> None:
        self._change = change

    def __call__(self, ids: dict[str, list[Any]], **rules: Any):
        roles = flows(ids, **rules)

        def changed(role: Any) -> Any:
            answer = None
            while True:
                try:
                    effect = role.send(answer)
                except StopIteration as stop:
                    return stop.value
                if isinstance(effect, Send):
                    effect = Send(effect.to, self._change(effect.message))
                answer = yield effect

        return run_together({FIRST: roles[FIRST], OTHER: changed(roles[OTHER])})


IDS = {FIRST: [(f"c-{row}",) for row in range(300)], OTHER: [(f"c-{row}",) for row in range(150, 450)]}


def resealed(kind: Any, change: Callable[[bytes], bytes]) -> Callable[[Any], Message]:
    """Points of this kind are changed before they are sealed: the peer seals what it will show."""
    first_of_kind = 0 if kind is BlindedIds else 1

    def alter(message: Any) -> Any:
        if isinstance(message, SealedBatch) and message.batch == first_of_kind:
            return msgspec.structs.replace(message, digest=seal(change(_unsealed[-1])))
        if isinstance(message, kind):
            return msgspec.structs.replace(message, points=change(message.points))
        return message

    return alter


_unsealed: list[bytes] = []


@pytest.fixture
def unsealed(monkeypatch):
    """What is sealed is noted, so that a peer can seal something else."""

    def noted(points: bytes) -> bytes:
        _unsealed.append(points)
        return seal(points)

    monkeypatch.setattr("vfl.protocols.alignment.seal", noted)
    yield
    _unsealed.clear()


def reversed_points(points: bytes) -> bytes:
    return b"".join(reversed(split(points)))


HOSTILE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a point that is not canonical": (lambda points: points[:-32] + b"\xff" * 32, "not the canonical encoding"),
    "the identity": (lambda points: points[:-32] + bytes(32), "is the identity"),
    "a point less": (lambda points: points[:-32], "points of 32 were due"),
    "a point more": (lambda points: points + points[:32], "points of 32 were due"),
    "half a point": (lambda points: points[:-16], "points of 32 were due"),
}


@pytest.mark.usefixtures("unsealed")
@pytest.mark.parametrize("kind", [BlindedIds, DoubleBlindedIds], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("what", HOSTILE)
def test_points_that_no_honest_peer_sends_are_refused_and_the_peer_is_named(what, kind):
    change, reason = HOSTILE[what]
    with pytest.raises(RemoteProtocolError, match=f"^{OTHER} .*{reason}"):
        Deviating(resealed(kind, change))(IDS)


@pytest.mark.usefixtures("unsealed")
def test_a_point_that_is_shown_twice_is_refused():
    with pytest.raises(RemoteProtocolError, match=f"^{OTHER} sent a point twice"):
        Deviating(resealed(BlindedIds, lambda points: points[:-32] + points[:32]))(IDS)


@pytest.mark.usefixtures("unsealed")
def test_answers_in_another_order_are_refused():
    with pytest.raises(RemoteProtocolError, match=f"^{OTHER} answered wrongly: .*each in its place"):
        Deviating(resealed(DoubleBlindedIds, reversed_points))(IDS)


@pytest.mark.parametrize("kind", [BlindedIds, DoubleBlindedIds, ShuffledDoubleBlindedIds], ids=lambda k: k.__name__)
def test_points_that_were_not_sealed_are_refused(kind):
    def alter(message: Any) -> Any:
        if isinstance(message, kind):
            return msgspec.structs.replace(message, points=reversed_points(message.points))
        return message

    reveal = "size-only" if kind is ShuffledDoubleBlindedIds else "intersection"
    with pytest.raises(RemoteProtocolError, match=f"^{OTHER} sent other points than it had sealed"):
        Deviating(alter)(IDS, reveal=reveal)


@pytest.mark.parametrize("kind", [SealedBatch, BlindedIds, DoubleBlindedIds], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("number", [0, 2, 77, -1])
def test_a_batch_that_comes_again_or_out_of_turn_is_refused(kind, number, monkeypatch):
    monkeypatch.setattr("vfl.planning.alignment.BATCH_IDS", 100)

    def alter(message: Any) -> Any:
        if isinstance(message, kind) and message.batch == 1:
            return msgspec.structs.replace(message, batch=number)
        return message

    with pytest.raises(RemoteProtocolError, match=f"^{OTHER} sent batch {number} of {kind.__name__} where batch 1"):
        Deviating(alter)(IDS)


def test_a_peer_that_finds_other_common_ids_is_named():
    def alter(message: Any) -> Any:
        return CommonDigest(bytes(32)) if isinstance(message, CommonDigest) else message

    with pytest.raises(RemoteProtocolError, match=f"^{OTHER} found other common ids"):
        Deviating(alter)(IDS)


@pytest.mark.parametrize("count", [-1, 0, 299, 1001])
def test_a_peer_with_fewer_or_more_ids_than_was_agreed_is_refused(count):
    def alter(message: Any) -> Any:
        return IdCount(count) if isinstance(message, IdCount) else message

    with pytest.raises(RemoteProtocolError, match=f"^{OTHER} brings {count} ids"):
        Deviating(alter)(IDS, minimum_ids=300, maximum_ids=1000)


def test_a_peer_cannot_make_every_id_common_by_sending_our_own_points_back():
    """The attack on a protocol without seals: it waits for our points, and shows a multiple of them as its own."""
    ids = IDS[FIRST]
    with pytest.raises(RemoteProtocolError, match="sent other points than it had sealed"):
        reflect(flows({FIRST: ids, OTHER: ids})[FIRST], len(ids))


def reflect(role: Any, count: int) -> None:
    key, effect = BlindingKey().scalar().reveal(), next(role)
    received: list[Message] = []
    while True:
        answer = None
        if isinstance(effect, Send):
            received.append(effect.message)
        elif isinstance(effect, Receive):
            answer = Delivery(_reflected(received, key, count))
        effect = role.send(answer)


def _reflected(received: list[Message], key: bytes, count: int) -> Message:
    last = received[-1]
    if isinstance(last, IdCount):
        return IdCount(count)
    if isinstance(last, SealedBatch):
        return SealedBatch(last.batch, seal(b"of something"))
    assert isinstance(last, BlindedIds)
    return BlindedIds(last.batch, blind_points(key, last.points))


def _points(message: Message | None) -> list[bytes]:
    return split(message.points) if isinstance(message, BlindedIds | DoubleBlindedIds) else []


def test_a_specification_says_what_each_id_column_holds():
    spec = specification(types=("text", "integer"))
    assert spec.align.types == ("text", "integer")
    assert np.array_equal(id_hash(("a", 7)), id_hash(("a", 7)))


@pytest.mark.parametrize("reveal", ["intersection", "size-only"])
def test_parties_without_a_common_id_are_told_what_may_be_the_cause(reveal):
    ids: dict[str, list[Any]] = {FIRST: [("007",), ("A",)], OTHER: [("7",), ("a",)]}
    together = align(ids, reveal=reveal)
    for outcome in together.results.values():
        assert [notice.code for notice in outcome.notices] == ["no_common_ids"]
        assert outcome.metrics["common_ids"] == 0
