"""The channel delivers each message once, in order, or raises the named error; never a wrong value."""

import dataclasses
import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from identities import identity_of

from parties.errors import (
    BrokenChain,
    EnvelopeRefused,
    EnvelopeTooLarge,
    Equivocation,
    MalformedEnvelope,
    SequenceGap,
    TamperedBody,
)
from parties.wire.envelopes import (
    NO_ENVELOPE,
    PART_LIMIT,
    PARTS_LIMIT,
    Envelope,
    Incoming,
    Outgoing,
    check_body,
    read_post,
)

DIGEST = bytes(range(32))


def lane() -> Outgoing:
    return Outgoing("job", DIGEST, 1, identity_of("a"), "b")


def travelled(envelopes: list[Envelope]) -> list[Envelope]:
    """What the other end reads from the bytes of a POST."""
    return list(read_post(b"".join(bytes(piece) for envelope in envelopes for piece in envelope.pieces()), "b"))


def deliver(incoming: Incoming, envelope: Envelope) -> bytes | None:
    """The checks of one envelope in their order; None for a repetition or an unfinished message."""
    if not incoming.is_new(envelope):
        return None
    check_body(envelope)
    body = incoming.accept(envelope)
    return None if body is None else bytes(body)


def test_what_is_sealed_is_read_and_delivered_in_order() -> None:
    sender, incoming = lane(), Incoming()
    bodies = [b"first", b"", b"third"]
    envelopes = [envelope for body in bodies for envelope in sender.seal("Kind", body)]
    assert [deliver(incoming, envelope) for envelope in travelled(envelopes)] == bodies
    assert [envelope.header.sequence for envelope in envelopes] == [0, 1, 2]


def test_each_header_names_the_one_before_it_as_it_travelled() -> None:
    sender = lane()
    first, second = sender.seal("Kind", b"one") + sender.seal("Kind", b"two")
    assert first.header.previous == NO_ENVELOPE
    assert second.header.previous == hashlib.sha256(first.encoded).digest()
    assert second.header.body_digest == hashlib.sha256(second.body).digest()


def test_a_short_message_travels_with_random_bytes_so_that_its_digest_cannot_be_guessed() -> None:
    short, again = lane().seal("Kind", b"yes") + lane().seal("Kind", b"yes")
    (longer,) = lane().seal("Kind", bytes(1024))
    assert short.header.body_digest != again.header.body_digest
    assert (bytes(short.message), short.header.body_bytes, short.header.salt_bytes) == (b"yes", 19, 16)
    assert (len(longer.message), longer.header.salt_bytes) == (1024, 0)


def test_a_body_above_four_mebibytes_travels_as_parts_and_arrives_whole() -> None:
    body = bytes(range(256)) * (2 * PART_LIMIT // 256) + b"rest"
    envelopes = lane().seal("Kind", body)
    incoming = Incoming()
    assert [envelope.header.part for envelope in envelopes] == [1, 2, 3]
    assert [deliver(incoming, envelope) for envelope in travelled(envelopes)] == [None, None, body]


def test_a_message_of_too_many_parts_is_not_sealed() -> None:
    with pytest.raises(EnvelopeTooLarge):
        lane().seal("Kind", bytes(PARTS_LIMIT * PART_LIMIT + 1))


def test_parts_of_two_messages_do_not_mix() -> None:
    big, small = lane().seal("Kind", bytes(PART_LIMIT + 1)), Incoming()
    deliver(small, big[0])
    header = msgspec.structs.replace(big[1].header, kind="Other")
    encoded = msgspec.msgpack.encode(header)
    with pytest.raises(MalformedEnvelope):
        deliver(small, Envelope(header, encoded, big[1].signature, hashlib.sha256(encoded).digest(), big[1].body))


def test_a_lane_that_does_not_start_at_the_beginning_is_a_gap() -> None:
    sender, incoming = lane(), Incoming()
    sender.seal("Kind", b"lost")
    with pytest.raises(SequenceGap) as gap:
        deliver(incoming, sender.seal("Kind", b"here")[0])
    assert gap.value.expected == 0


def test_the_same_number_with_another_content_is_equivocation() -> None:
    incoming = Incoming()
    deliver(incoming, lane().seal("Kind", b"yes")[0])
    with pytest.raises(Equivocation):
        deliver(incoming, lane().seal("Kind", b"no")[0])


def test_another_past_breaks_the_chain() -> None:
    one, other, incoming = lane(), lane(), Incoming()
    deliver(incoming, one.seal("Kind", b"yes")[0])
    other.seal("Kind", b"no")
    with pytest.raises(BrokenChain):
        deliver(incoming, other.seal("Kind", b"next")[0])


actions = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["send", "tamper body", "tamper header"])), max_size=30)


@given(actions)
def test_whatever_is_dropped_repeated_reordered_or_tampered_with_only_a_true_prefix_arrives(
    actions: list[tuple[int, str]],
) -> None:
    sender, incoming = lane(), Incoming()
    bodies = [f"message {number}".encode() for number in range(6)]
    envelopes = [sender.seal("Kind", body)[0] for body in bodies]
    arrived = []
    for number, action in actions:
        envelope = envelopes[number]
        if action == "tamper body":
            sent = bytes(envelope.body)
            envelope = dataclasses.replace(envelope, body=sent[:-1] + bytes([sent[-1] ^ 1]))
        if action == "tamper header":
            header = msgspec.structs.replace(envelope.header, previous=bytes([7]) * 32)
            encoded = msgspec.msgpack.encode(header)
            envelope = dataclasses.replace(
                envelope, header=header, encoded=encoded, digest=hashlib.sha256(encoded).digest()
            )
        try:
            body = deliver(incoming, envelope)
        except (SequenceGap, Equivocation, BrokenChain, TamperedBody):
            continue
        if body is not None:
            arrived.append(body)
    assert arrived == bodies[: len(arrived)]


@given(st.binary(max_size=200))
def test_noise_ends_in_a_named_refusal(noise: bytes) -> None:
    if noise:
        with pytest.raises(EnvelopeRefused) as refused:
            list(read_post(noise, "b"))
        assert 400 <= refused.value.status < 500
