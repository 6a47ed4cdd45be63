"""The two ends of a Paillier key (Eurocrypt 1999): the owner encrypts and opens, the other side computes and masks.

Five rules, each with a test that shows the attack when it is left out (tests/paillier/):

1. A received modulus comes with a proof that it is well formed (crypto.paillier_proof).
2. A received ciphertext c is used only if 0 < c < n^2 and gcd(c, n) = 1: a decryption of 0 or of a multiple of p shows
   the key, and c as a multiple of p would carry the label party's weights through any mask.
3. Ciphertexts travel with the fingerprint of their key, in numbers of one length, as many as agreed.
4. What goes to the key owner to be opened is masked with a number uniform modulo n, and multiplied with a fresh r^n.
   Both are exact: the owner sees one uniform number modulo n^2, whatever it had sent.
5. No fresh r^n, no mask and no random number that hides limbs is used twice.

phe keeps the keys and decrypts; it is of the extra `paillier`, and nothing else imports it.
"""

import hashlib
import secrets
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, NoReturn

import gmpy2
import phe

from crypto.errors import InvalidCiphertext, InvalidKey
from crypto.paillier_parameters import FINGERPRINT_BYTES, PROOF_ROOTS
from crypto.paillier_powers import (
    counts,
    numbers,
    owners_secret,
    powers_of_anybody,
    powers_of_owner,
    primes_of,
    written,
)
from crypto.paillier_primes import prime
from crypto.paillier_proof import check, prove
from crypto.pieces import HERE, Pool


class KeyMaterial(NamedTuple):
    """A key's public part in wire form."""

    modulus: bytes
    proof: bytes


class PaillierPrivateKey:
    """The key owner's end. Cannot be printed or pickled."""

    def __init__(self, bits: int) -> None:
        first, second = prime(bits // 2), prime(bits // 2)
        while first.p == second.p:
            second = prime(bits // 2)
        self._p, self._q = first.p, second.p
        self.n = first.p * second.p
        self._bits = bits
        self._secret = owners_secret([first, second])
        self._randomness: list[int] = []
        self.operations: Counter[str] = Counter()

    def __repr__(self) -> str:
        return "PaillierPrivateKey(...)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key stays in the process that made it")

    @property
    def material(self) -> KeyMaterial:
        size = self._bits // 8
        proof = b"".join(root.to_bytes(size, "big") for root in prove(self._p, self._q))
        return KeyMaterial(self.n.to_bytes(size, "big"), proof)

    def prepare(self, count: int, pool: Pool = HERE) -> None:
        """Makes the random part of so many encryptions ahead."""
        for powers in pool.map(powers_of_owner, self._secret, counts(count - len(self._randomness))):
            self._randomness += numbers(powers, 2 * self._bits // 8)

    def encrypt(self, plaintexts: Sequence[int], pool: Pool = HERE) -> bytes:
        """Integers modulo n, in wire form."""
        self.prepare(len(plaintexts), pool)
        n, square = gmpy2.mpz(self.n), gmpy2.mpz(self.n) ** 2
        ciphertexts = [(1 + plaintext % n * n) * self._randomness.pop() % square for plaintext in plaintexts]
        self.operations["encrypt"] += len(ciphertexts)
        return _written(self.n, ciphertexts, 2 * self._bits // 8)

    def open(self, masked: bytes, count: int, pool: Pool = HERE) -> list[int]:
        """Decrypts so many ciphertexts that the other side has masked: numbers below n. Raises InvalidCiphertext."""
        size = 2 * self._bits // 8
        pieces = (written([ciphertext], size) for ciphertext in _checked(masked, count, self.n, self._bits))
        self.operations["open"] += count
        return [int.from_bytes(opened, "big") for opened in pool.map(decrypted, self._secret, pieces)]

    def written(self, opened: Sequence[int]) -> bytes:
        """Opened numbers, reduced modulo n, in wire form."""
        return _written(self.n, [number % self.n for number in opened], self._bits // 8)


class PaillierPublicKey:
    """The other side's end: checks what it receives, masks what it sends. Raises InvalidKey."""

    def __init__(self, material: KeyMaterial, bits: int) -> None:
        size = bits // 8
        if len(material.modulus) != size or len(material.proof) != PROOF_ROOTS * size:
            raise InvalidKey(f"the key does not have the length of one of {bits} bits")
        n = int.from_bytes(material.modulus, "big")
        check(n, bits, numbers(material.proof, size))
        self.n, self.square = gmpy2.mpz(n), gmpy2.mpz(n) ** 2
        self._bits = bits
        self._randomness: list[int] = []
        self.operations: Counter[str] = Counter()

    def load(self, ciphertexts: bytes, count: int) -> list[int]:
        """Raises InvalidCiphertext."""
        return _checked(ciphertexts, count, int(self.n), self._bits)

    def prepare(self, count: int, pool: Pool = HERE) -> None:
        """Makes the random part of so many maskings ahead, while nothing else is to be done."""
        size = self._bits // 8
        pieces = counts(count - len(self._randomness))
        for powers in pool.map(powers_of_anybody, int(self.n).to_bytes(size, "big"), pieces):
            self._randomness += numbers(powers, 2 * size)

    def mask(self, ciphertexts: Sequence[int], pool: Pool = HERE) -> tuple[bytes, "Masks"]:
        """Each plus a number uniform modulo n, re-randomised, in wire form; and what takes the numbers off again."""
        self.prepare(len(ciphertexts), pool)
        masks = [secrets.randbelow(int(self.n)) for _ in ciphertexts]
        masked = []
        for ciphertext, mask in zip(ciphertexts, masks, strict=True):
            masked.append(ciphertext * (1 + mask * self.n) % self.square * self._randomness.pop() % self.square)
        self.operations["mask"] += len(masks)
        return _written(int(self.n), masked, 2 * self._bits // 8), Masks(int(self.n), masks)


class Masks:
    """The masks of one message, each taken off once."""

    def __init__(self, n: int, masks: list[int]) -> None:
        self._n, self._masks = n, masks

    def remove(self, opened: bytes) -> list[int]:
        """Integers nearest to 0 that are the opened numbers without their masks. Raises InvalidCiphertext."""
        size = -(-self._n.bit_length() // 8)
        body = _body(opened, self._n, len(self._masks), size)
        half, masks, self._masks = self._n // 2, self._masks, []
        values = []
        for number, mask in zip(numbers(body, size), masks, strict=True):
            if number >= self._n:
                raise InvalidCiphertext("an opened number is not below the modulus")
            values.append((number - mask + half) % self._n - half)
        return values


def decrypted(shared: bytes, ciphertext: bytes) -> bytes:
    """Work: one ciphertext that has been checked, with the secret of its owner."""
    opened = int(_phe_key(shared).raw_decrypt(int.from_bytes(ciphertext, "big")))
    return opened.to_bytes(len(ciphertext) // 2, "big")


@lru_cache(maxsize=1)
def _phe_key(shared: bytes) -> Any:
    (p, _), (q, _) = primes_of(shared)
    return phe.PaillierPrivateKey(phe.PaillierPublicKey(p * q), p, q)


def fingerprint(n: int) -> bytes:
    """What a batch of ciphertexts begins with: it says under which key they are."""
    return hashlib.sha256(n.to_bytes(-(-n.bit_length() // 8), "big")).digest()


def _written(n: int, values: Iterable[int], size: int) -> bytes:
    return fingerprint(n) + written(values, size)


def _body(data: bytes, n: int, count: int, size: int) -> bytes:
    if len(data) != FINGERPRINT_BYTES + count * size:
        raise InvalidCiphertext(f"{len(data)} bytes are not {count} numbers of {size} bytes")
    if data[:FINGERPRINT_BYTES] != fingerprint(n):
        raise InvalidCiphertext("numbers are under another key")
    return data[FINGERPRINT_BYTES:]


def _checked(data: bytes, count: int, n: int, bits: int) -> list[int]:
    """Rule 2 and 3; one gcd with the product of all, which shares a factor with n exactly if one of them does."""
    size = 2 * bits // 8
    ciphertexts = [gmpy2.mpz(number) for number in numbers(_body(data, n, count, size), size)]
    square, product = gmpy2.mpz(n) ** 2, gmpy2.mpz(1)
    for ciphertext in ciphertexts:
        if not 0 < ciphertext < square:
            raise InvalidCiphertext("a ciphertext is not between 0 and the square of the modulus")
        product = product * ciphertext % n
    if gmpy2.gcd(product, n) != 1:
        raise InvalidCiphertext("a ciphertext shares a factor with the modulus")
    return ciphertexts
