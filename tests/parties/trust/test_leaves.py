"""A leaf has one encoding, and what its event asks for."""

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parties.trust.errors import MalformedLeaf
from parties.trust.leaves import LEAF_LIMIT, Event, Leaf, decode, encode

PAGE = Path(__file__).parents[3] / "docs" / "protocols" / "audit_log.md"
SENT = Leaf(time_ms=5, event=Event.SENT, job="job-1", peer="clinic", header=b"\x81", signature=bytes(64))
ENDED = Leaf(time_ms=6, event=Event.JOB_ENDED, job="job-1", detail={"state": "done", "values": 620})

DETAILS = st.dictionaries(
    st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True),
    st.one_of(st.text(max_size=40), st.integers(-(2**63), 2**64 - 1)),
    max_size=20,
)
LEAVES = st.builds(
    Leaf,
    time_ms=st.integers(0, 2**63),
    event=st.sampled_from(sorted(set(Event) - {Event.SENT, Event.RECEIVED})),
    job=st.text(max_size=40),
    peer=st.text(max_size=40),
    detail=DETAILS,
)


@given(LEAVES)
def test_a_leaf_is_read_as_it_was_written(leaf: Leaf) -> None:
    encoded = encode(leaf)
    assert decode(encoded) == leaf
    assert encode(decode(encoded)) == encoded


def test_the_order_in_which_details_are_named_does_not_matter() -> None:
    one = Leaf(time_ms=1, event=Event.EXPORTED, detail={"b": 1, "a": 2})
    other = Leaf(time_ms=1, event=Event.EXPORTED, detail={"a": 2, "b": 1})
    assert encode(one) == encode(other)


def test_the_fields_stand_in_the_order_of_the_page() -> None:
    names = list(msgspec.msgpack.decode(encode(SENT)))
    assert names == re.findall(r"^\| `(\w+)` \| (?:integer|text|bytes|map)", PAGE.read_text("utf-8"), re.MULTILINE)


def test_the_page_explains_every_event() -> None:
    listed = PAGE.read_text("utf-8").partition("| event |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", listed, re.MULTILINE) == list(Event)


@pytest.mark.parametrize(
    "leaf",
    [
        msgspec.structs.replace(SENT, header=b""),
        msgspec.structs.replace(SENT, signature=b""),
        msgspec.structs.replace(SENT, signature=bytes(63)),
        msgspec.structs.replace(SENT, job=""),
        msgspec.structs.replace(SENT, peer=""),
        msgspec.structs.replace(SENT, header=bytes(LEAF_LIMIT)),
        msgspec.structs.replace(SENT, event=Event.JOB_AGREED),
        msgspec.structs.replace(SENT, event=Event.REFUSED, signature=b""),
        msgspec.structs.replace(ENDED, version=2),
        msgspec.structs.replace(ENDED, time_ms=-1),
        msgspec.structs.replace(ENDED, detail={"Name": 1}),
        msgspec.structs.replace(ENDED, detail={"": 1}),
        msgspec.structs.replace(ENDED, detail={"name": 1.5}),
    ],
)
def test_a_leaf_that_a_verifier_would_refuse_is_not_written(leaf: Leaf) -> None:
    with pytest.raises(MalformedLeaf):
        encode(leaf)


def test_a_refusal_may_carry_the_envelope_that_was_refused() -> None:
    refused = msgspec.structs.replace(SENT, event=Event.REFUSED, detail={"code": "equivocation"})
    assert decode(encode(refused)) == refused
    assert encode(Leaf(time_ms=1, event=Event.REFUSED, peer="clinic", detail={"code": "unknown_sender"}))


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: {**fields, "more": 1},
        lambda fields: {name: fields[name] for name in list(fields)[:-1]},
        lambda fields: dict(reversed(fields.items())),
        lambda fields: fields | {"event": "something"},
        lambda fields: fields | {"detail": {"b": 1, "a": 1}},
        lambda fields: fields | {"detail": {"a": True}},
        lambda fields: fields | {"detail": {"a": None}},
        lambda fields: fields | {"time_ms": 5.0},
    ],
)
def test_what_is_not_written_as_a_leaf_is_not_read(change) -> None:
    with pytest.raises(MalformedLeaf):
        decode(msgspec.msgpack.encode(change(msgspec.msgpack.decode(encode(ENDED)))))


def test_a_number_in_a_longer_form_is_not_read() -> None:
    encoded = encode(ENDED)
    with pytest.raises(MalformedLeaf, match="encoded as it should"):
        decode(encoded.replace(b"\xa7version\x01", b"\xa7version\xcc\x01"))


@given(st.binary(max_size=100), st.integers(0, 8 * len(encode(SENT)) - 1))
def test_no_bytes_do_more_than_raise(noise: bytes, bit: int) -> None:
    changed = bytearray(encode(SENT))
    changed[bit // 8] ^= 1 << bit % 8
    for tried in (noise, bytes(changed)):
        try:
            assert encode(decode(tried)) == tried
        except MalformedLeaf:
            continue
