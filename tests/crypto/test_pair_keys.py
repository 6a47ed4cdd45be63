"""Keys of a sum: both of a pair derive the same, bound to the whole list, and unusable points are refused."""

import secrets

import pytest

from crypto.errors import InvalidBox, InvalidKey
from crypto.pair_keys import (
    PublicPair,
    fresh_private_key,
    key_list,
    mask_seed,
    public_key,
    refuse_unusable,
    sealing_key,
)
from crypto.sealing import TAG_BYTES, seal, unseal

P = 2**255 - 19
SMALL_ORDER = [
    0,
    1,
    P - 1,
    P,
    P + 1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
]
"""Orders 1, 2, 4 and 8, and the encodings at and above p."""

NAMES = ("a", "b", "c")


@pytest.fixture
def private():
    return {name: (fresh_private_key(), fresh_private_key()) for name in NAMES}


@pytest.fixture
def pairs(private):
    return {name: PublicPair(public_key(one), public_key(other)) for name, (one, other) in private.items()}


def test_both_of_a_pair_derive_one_mask_seed_and_every_pair_another(private, pairs):
    keys = key_list(b"terms", pairs)
    seeds = {(i, j): mask_seed(private[i][0], keys, i, j) for i in NAMES for j in NAMES if i != j}
    assert all(seeds[i, j] == seeds[j, i] for i, j in seeds)
    assert len(set(seeds.values())) == 3


@pytest.mark.parametrize("changed", ["terms", "member", "order"])
def test_another_list_or_other_terms_give_other_keys(private, pairs, changed):
    terms, others = b"terms", dict(pairs)
    match changed:
        case "terms":
            terms = b"other terms"
        case "member":
            others["c"] = PublicPair(public_key(fresh_private_key()), pairs["c"].sealing)
        case "order":
            others = {name: pairs[name] for name in reversed(NAMES)}
    keys, other = key_list(b"terms", pairs), key_list(terms, others)
    assert mask_seed(private["a"][0], keys, "a", "b") != mask_seed(private["a"][0], other, "a", "b")
    sealed = sealing_key(private["a"][1], keys, "a", "b", "a")
    assert sealed != sealing_key(private["b"][1], other, "a", "b", "b")


def test_a_box_opens_for_its_receiver_in_its_direction_only(private, pairs):
    keys = key_list(b"terms", pairs)
    box = seal(sealing_key(private["a"][1], keys, "a", "b", "a"), b"shares")
    assert len(box) == len(b"shares") + TAG_BYTES
    assert unseal(sealing_key(private["b"][1], keys, "a", "b", "b"), box) == b"shares"
    for key in (
        sealing_key(private["b"][1], keys, "b", "a", "b"),  # sent back
        sealing_key(private["c"][1], keys, "a", "c", "c"),  # passed on to another
        mask_seed(private["a"][0], keys, "a", "b"),
    ):
        with pytest.raises(InvalidBox, match="another sender, receiver or purpose"):
            unseal(key, box)


@pytest.mark.parametrize("at", range(22))
def test_a_changed_box_does_not_open(at):
    key = secrets.token_bytes(32)
    box = bytearray(seal(key, b"shares"))
    box[at] ^= 1
    with pytest.raises(InvalidBox):
        unseal(key, bytes(box))


@pytest.mark.parametrize("box", [b"", bytes(15), bytes(16)])
def test_a_box_too_short_to_be_one_does_not_open(box):
    with pytest.raises(InvalidBox):
        unseal(bytes(32), box)


@pytest.mark.parametrize("point", SMALL_ORDER)
@pytest.mark.parametrize("high_bit", [0, 1])
def test_a_point_of_small_order_is_refused(point, high_bit):
    with pytest.raises(InvalidKey, match="small order"):
        refuse_unusable((point | high_bit << 255).to_bytes(32, "little"))


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_of_another_length_is_refused(size):
    with pytest.raises(InvalidKey, match=f"{size} bytes"):
        refuse_unusable(bytes(size))


def test_a_list_with_one_key_in_two_places_is_refused_by_name(pairs):
    with pytest.raises(InvalidKey, match="b and a have the same key"):
        key_list(b"terms", {**pairs, "b": PublicPair(pairs["a"].sealing, pairs["b"].sealing)})
    with pytest.raises(InvalidKey, match="c and c have the same key"):
        key_list(b"terms", {**pairs, "c": PublicPair(pairs["c"].masking, pairs["c"].masking)})
    with pytest.raises(InvalidKey, match="a key of c cannot be used: the key is a point of small order"):
        key_list(b"terms", {**pairs, "c": PublicPair(bytes(32), pairs["c"].sealing)})


def test_fresh_keys_differ():
    assert len({fresh_private_key() for _ in range(100)}) == 100
