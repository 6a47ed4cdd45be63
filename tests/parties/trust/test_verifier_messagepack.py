"""The small MessagePack reader of the verifier reads what msgspec writes, and nothing surprises it."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parties.trust import verifier
from parties.trust.verifier import pack, unpack

VALUES = st.one_of(st.text(max_size=300), st.integers(-(2**63), 2**64 - 1), st.binary(max_size=300))
MAPS = st.dictionaries(
    st.text(max_size=40), st.one_of(VALUES, st.dictionaries(st.text(max_size=40), VALUES, max_size=20)), max_size=40
)


@given(MAPS)
def test_its_messagepack_is_that_of_msgspec(value) -> None:
    encoded = msgspec.msgpack.encode(value)
    assert unpack(encoded) == value
    assert pack(value) == encoded


@pytest.mark.parametrize("length", [0, 31, 32, 255, 256, 65535, 65536])
def test_its_messagepack_knows_all_lengths(length: int) -> None:
    value = {"text": "a" * length, "bytes": bytes(length), "map": dict.fromkeys(map(str, range(length % 1000)), 1)}
    assert pack(unpack(msgspec.msgpack.encode(value))) == msgspec.msgpack.encode(value)
    assert pack([1] * (length % 16)) == msgspec.msgpack.encode([1] * (length % 16))


@given(st.binary(max_size=80))
def test_no_bytes_do_more_than_raise_what_is_expected(noise: bytes) -> None:
    for tried in (noise, b"\x81\xa1a" + noise):
        try:
            unpack(tried)
        except verifier.UNREADABLE:
            continue


@given(st.integers(-(2**31), 2**31), st.sampled_from([0xD2, 0xD3]), st.floats(allow_nan=False))
def test_it_reads_every_form_of_a_number_that_a_peers_header_may_have(number: int, tag: int, real: float) -> None:
    encoded = number.to_bytes(4 if tag == 0xD2 else 8, "big", signed=True) if number < 2**31 else b"\xff" * 8
    if number < 2**31:
        assert unpack(b"\x81\xa1n" + bytes([tag]) + encoded) == {"n": number}
    assert unpack(msgspec.msgpack.encode({"r": real})) == {"r": real}
