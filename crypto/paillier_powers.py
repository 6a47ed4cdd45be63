"""Products of powers and powers of one base, in fewer multiplications than one by one."""

from collections.abc import Sequence

import gmpy2

from crypto.paillier_work import window_of


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
