"""Products of powers and powers of one base, in fewer multiplications than one by one; random n-th powers."""

import secrets
import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache

import gmpy2

from crypto.paillier_primes import Prime
from crypto.paillier_work import window_of
from crypto.pieces import SecretBytes

PIECE = 16
"""Random powers that are made in one piece."""
_COUNT = struct.Struct("<I")


def product_of_powers(bases: Sequence[int], exponents: Sequence[int], modulus: int) -> int:
    """prod_i bases[i] ^ exponents[i] modulo the modulus; an exponent may be negative.

    Pippenger's buckets (1976), or each power by itself where the exponents are longer than there are bases to share
    the squarings. Its time depends on the exponents, which are the caller's own.
    """
    modulus = gmpy2.mpz(modulus)
    up = [(base, exponent) for base, exponent in zip(bases, exponents, strict=True) if exponent > 0]
    down = [(base, -exponent) for base, exponent in zip(bases, exponents, strict=True) if exponent < 0]
    product = _of_positive(up, modulus)
    if down:
        product = product * gmpy2.invert(_of_positive(down, modulus), modulus) % modulus
    return product


def _of_positive(powers: list[tuple[int, int]], modulus: int) -> int:
    longest = max((exponent.bit_length() for _, exponent in powers), default=0)
    width, cost = window_of(len(powers), longest)
    if len(powers) * longest < cost:
        product = gmpy2.mpz(1)
        for base, exponent in powers:
            product = product * gmpy2.powmod(base, exponent, modulus) % modulus
        return int(product)
    return int(_by_buckets(powers, modulus, width, longest))


def _by_buckets(powers: list[tuple[int, int]], modulus: int, width: int, longest: int) -> int:
    product, mask = gmpy2.mpz(1), (1 << width) - 1
    for window in reversed(range(-(-longest // width))):
        for _ in range(width):
            product = product * product % modulus
        buckets: dict[int, int] = {}
        for base, exponent in powers:
            if digit := (exponent >> (window * width)) & mask:
                buckets[digit] = buckets[digit] * base % modulus if digit in buckets else base
        running, total = gmpy2.mpz(1), gmpy2.mpz(1)
        for digit in range(max(buckets, default=0), 0, -1):  # prod bucket[d]^d, as running products of products
            if digit in buckets:
                running = running * buckets[digit] % modulus
            total = total * running % modulus
        product = product * total % modulus
    return int(product)


class FixedBase:
    """Powers of one base by a table: no squaring, and a multiplication for each window of the exponent."""

    WINDOW = 9
    """Bits of the exponent for each multiplication: a key of 3072 bits has tables of some 70 MB."""

    def __init__(self, base: int, modulus: int, exponent_bits: int) -> None:
        self._modulus = gmpy2.mpz(modulus)
        self._table = []
        step = gmpy2.mpz(base)
        for _ in range(-(-exponent_bits // self.WINDOW)):
            row = [gmpy2.mpz(1)]
            for _ in range((1 << self.WINDOW) - 1):
                row.append(row[-1] * step % self._modulus)
            self._table.append(row)
            step = row[-1] * step % self._modulus

    def power(self, exponent: int) -> int:
        """Of an exponent that is not negative and not longer than agreed."""
        product, mask = gmpy2.mpz(1), (1 << self.WINDOW) - 1
        for at, row in enumerate(self._table):
            product = product * row[(exponent >> (at * self.WINDOW)) & mask] % self._modulus
        return int(product)


class OwnersPowers:
    """Random n-th powers modulo n^2 as the owner of both primes makes them, by a table for each."""

    def __init__(self, primes: Sequence[Prime]) -> None:
        self._primes = [each.p for each in primes]
        self._squares = [gmpy2.mpz(each.p) ** 2 for each in primes]
        # x -> x^p maps the numbers modulo p one to one on the n-th powers modulo p^2, so a generator on a generator.
        self._powers = [
            FixedBase(int(gmpy2.powmod(each.generator, each.p, square)), int(square), each.p.bit_length())
            for each, square in zip(primes, self._squares, strict=True)
        ]
        self._lift = gmpy2.invert(self._squares[1], self._squares[0])

    def draw(self) -> int:
        """Uniform among all n-th powers modulo n^2, as r^n of a random r is: a uniform one for each prime, joined."""
        of_p, of_q = (
            powers.power(secrets.randbelow(prime - 1)) for powers, prime in zip(self._powers, self._primes, strict=True)
        )
        square_of_p, square_of_q = self._squares
        return int(of_q + square_of_q * ((of_p - of_q) * self._lift % square_of_p))


def owners_secret(primes: Sequence[Prime]) -> SecretBytes:
    """For `powers_of_owner`: primes and generators, of one length each."""
    size = -(-primes[0].p.bit_length() // 8)
    return SecretBytes(written((number for each in primes for number in each), size))


def powers_of_owner(shared: bytes, count: bytes) -> bytes:
    """Work: so many random n-th powers, drawn by the key's owner."""
    powers = _owners_powers(shared)
    return written((powers.draw() for _ in range(*_COUNT.unpack(count))), len(shared))


def powers_of_anybody(shared: bytes, count: bytes) -> bytes:
    """Work: so many random n-th powers, drawn from n alone."""
    n = gmpy2.mpz(int.from_bytes(shared, "big"))
    drawn = (1 + secrets.randbelow(int(n) - 1) for _ in range(*_COUNT.unpack(count)))
    return written((gmpy2.powmod(r, n, n * n) for r in drawn), 2 * len(shared))


def counts(count: int) -> Iterable[bytes]:
    """Pieces of work for so many powers."""
    return (_COUNT.pack(min(PIECE, count - start)) for start in range(0, count, PIECE))


@lru_cache(maxsize=1)
def _owners_powers(shared: bytes) -> OwnersPowers:
    return OwnersPowers(primes_of(shared))


def primes_of(shared: bytes) -> list[Prime]:
    """What `owners_secret` has written."""
    p, of_p, q, of_q = numbers(shared, len(shared) // 4)
    return [Prime(p, of_p), Prime(q, of_q)]


def written(values: Iterable[int], size: int) -> bytes:
    return b"".join(int(value).to_bytes(size, "big") for value in values)


def numbers(body: bytes, size: int) -> list[int]:
    return [int.from_bytes(body[start : start + size], "big") for start in range(0, len(body), size)]
