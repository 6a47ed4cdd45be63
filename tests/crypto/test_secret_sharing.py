"""Shamir's sharing: any threshold of shares gives the key, fewer fit every key."""

import secrets

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.errors import InvalidShare
from crypto.secret_sharing import PRIME, SHARE_BYTES, secret_of, shares_of

SECRETS = st.binary(min_size=32, max_size=32)


@st.composite
def sharings(draw):
    """A secret, a number of holders, a threshold, and which indices give their shares: as many as the threshold."""
    holders = draw(st.integers(1, 24))
    threshold = draw(st.integers(1, holders))
    indices = draw(st.permutations(range(1, holders + 1)))[:threshold]
    return draw(SECRETS), holders, threshold, indices


def some(shares, indices):
    return {index: shares[index - 1] for index in indices}


@settings(deadline=None, max_examples=60)
@given(sharings())
def test_any_threshold_of_shares_gives_the_key(sharing):
    secret, holders, threshold, indices = sharing
    assert secret_of(some(shares_of(secret, holders, threshold), indices)) == secret


@settings(deadline=None, max_examples=60)
@given(sharings(), SECRETS)
def test_fewer_shares_fit_every_other_key_as_well(sharing, other):
    """For any key there is a value of one more share with which the held ones give that key: they tell nothing."""
    secret, holders, threshold, indices = sharing
    shares = some(shares_of(secret, holders, threshold), indices)
    missing = indices[-1]
    at_zero = 1  # Lagrange's weight of the missing index
    for index in indices[:-1]:
        at_zero = at_zero * index * pow(index - missing, -1, PRIME) % PRIME
    value = int.from_bytes(shares[missing], "little")
    value += (int.from_bytes(other, "little") - int.from_bytes(secret, "little")) * pow(at_zero, -1, PRIME)
    shares[missing] = (value % PRIME).to_bytes(SHARE_BYTES, "little")
    assert secret_of(shares) == other


def test_one_share_too_few_gives_another_value():
    secret = secrets.token_bytes(32)
    shares = shares_of(secret, 5, 3)
    assert secret_of(some(shares, [1, 2])) != secret


def test_the_same_key_is_shared_differently_each_time():
    secret = bytes(32)
    assert not set(shares_of(secret, 5, 3)) & set(shares_of(secret, 5, 3))


def test_shares_are_spread_over_the_whole_field():
    """Below the threshold a share is uniform, whatever the key: its highest full byte takes nearly all values."""
    first = [shares_of(bytes(32), 3, 2)[0] for _ in range(2000)]
    assert len({share[31] for share in first}) > 240


def test_the_field_is_one_and_the_least_that_holds_every_key():
    def is_prime(number):
        odd, twos = number - 1, 0
        while odd % 2 == 0:
            odd, twos = odd // 2, twos + 1
        for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41):
            if number % base == 0:
                return False
            x = pow(base, odd, number)
            if x not in (1, number - 1) and all((x := x * x % number) != number - 1 for _ in range(twos - 1)):
                return False
        return True

    assert [n for n in range(2**256, PRIME + 1) if is_prime(n)] == [PRIME]


def test_one_holder_with_threshold_one_holds_the_key_itself():
    secret = secrets.token_bytes(32)
    assert secret_of({1: shares_of(secret, 1, 1)[0]}) == secret


@pytest.mark.parametrize(
    "shares",
    [
        {},
        {0: bytes(SHARE_BYTES)},
        {-1: bytes(SHARE_BYTES)},
        {1: bytes(SHARE_BYTES - 1)},
        {1: bytes(SHARE_BYTES + 1)},
        {1: PRIME.to_bytes(SHARE_BYTES, "little")},
        {1: b"\xff" * SHARE_BYTES},
    ],
    ids=["none", "index-0", "index-below-0", "short", "long", "the-prime", "too-large"],
)
def test_what_no_share_can_be_is_refused(shares):
    with pytest.raises(InvalidShare):
        secret_of(shares)


def test_shares_that_give_no_key_of_32_bytes_are_refused():
    with pytest.raises(InvalidShare, match="do not belong together"):
        secret_of({1: (2**256).to_bytes(SHARE_BYTES, "little")})


@pytest.mark.parametrize(("size", "holders", "threshold"), [(31, 3, 2), (32, 3, 4), (32, 3, 0), (32, 0, 1)])
def test_a_sharing_that_cannot_be_is_refused(size, holders, threshold):
    with pytest.raises(ValueError, match="cannot be shared"):
        shares_of(bytes(size), holders, threshold)
