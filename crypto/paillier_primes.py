"""Primes of a Paillier key whose multiplicative group is known whole, so that its owner can draw from it by a table."""

import secrets
from typing import NamedTuple

import gmpy2

TESTS = 40
"""Miller-Rabin tests of a candidate."""
COFACTOR_BITS = 24


class Prime(NamedTuple):
    """p = 2 a r + 1 with r prime and a odd and small, and a generator of the numbers modulo p."""

    p: int
    generator: int


def prime(bits: int) -> Prime:
    """Its two highest bits are set: a product of two has twice as many bits. r keeps p - 1 from being smooth."""
    r = _random_prime(bits - COFACTOR_BITS)
    lowest, highest = (3 << (bits - 2)) // (2 * r), (1 << bits) // (2 * r)
    while True:
        a = lowest + 1 + secrets.randbelow(highest - lowest - 1) | 1
        p = 2 * a * r + 1
        if p.bit_length() == bits and gmpy2.is_prime(p, TESTS):
            return Prime(p, _generator(p, [2, r, *_factors(a)]))


def _random_prime(bits: int) -> int:
    while True:
        candidate = secrets.randbits(bits - 1) | (1 << (bits - 1)) | 1
        if gmpy2.is_prime(candidate, TESTS):
            return candidate


def _generator(p: int, factors: list[int]) -> int:
    """Of all numbers modulo p, whose number p - 1 has these prime factors."""
    while True:
        candidate = 2 + secrets.randbelow(p - 3)
        if all(gmpy2.powmod(candidate, (p - 1) // factor, p) != 1 for factor in factors):
            return candidate


def _factors(number: int) -> list[int]:
    """Prime factors of a small odd number."""
    factors, divisor = [], 3
    while divisor * divisor <= number:
        if number % divisor == 0:
            factors.append(divisor)
            number //= divisor
        else:
            divisor += 2
    return [*factors, number] if number > 1 else factors
