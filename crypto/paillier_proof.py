"""Shows without any further word that a modulus n is well formed: gcd(n, phi(n)) = 1, so that it is square-free.

Goldberg, Reyzin, Sagga and Baldimtsi, "Efficient Noninteractive Certification of RSA Moduli and Beyond" (Asiacrypt
2019, ePrint 2018/057): the key owner shows n-th roots of challenges that a hash draws from n, and the other side looks
for factors below a bound alpha. Whoever cheats passes with probability alpha^-11 = 2^-139 for alpha = 6370.

What rests on it (paillier_training.md): r -> r^n permutes the numbers prime to n, so that a fresh r^n covers all of a
ciphertext's randomness. That n has two factors, and that nobody else knows them, is not shown; the key owner alone
would lose by it.
"""

import hashlib

import gmpy2

from crypto.errors import InvalidKey
from crypto.paillier_parameters import PROOF_ROOTS

SMALLEST_FACTOR = 6370
_DOMAIN = b"vfl paillier modulus 1\0"
_SPARE_BYTES = 16
"""A challenge is drawn so much longer than n, so that it is as good as uniform modulo n."""


def prove(p: int, q: int) -> list[int]:
    """n-th roots of the challenges."""
    n, phi = p * q, (p - 1) * (q - 1)
    inverse = gmpy2.invert(n, phi)
    return [int(gmpy2.powmod(challenge, inverse, n)) for challenge in _challenges(n)]


def check(n: int, bits: int, roots: list[int]) -> None:
    """Raises InvalidKey, naming the rule that does not hold."""
    if n.bit_length() != bits:
        raise InvalidKey(f"the modulus has {n.bit_length()} bits and not {bits}")
    if gmpy2.gcd(n, gmpy2.primorial(SMALLEST_FACTOR)) != 1:
        raise InvalidKey(f"the modulus has a factor below {SMALLEST_FACTOR}")
    if gmpy2.is_prime(n):
        raise InvalidKey("the modulus is a prime")
    if len(roots) != PROOF_ROOTS or not all(0 < root < n for root in roots):
        raise InvalidKey(f"the proof is not {PROOF_ROOTS} numbers below the modulus")
    challenges = _challenges(n)
    if any(gmpy2.powmod(root, n, n) != challenge for root, challenge in zip(roots, challenges, strict=True)):
        raise InvalidKey("the proof of the modulus does not hold")


def _challenges(n: int) -> list[int]:
    size = -(-n.bit_length() // 8)
    written = n.to_bytes(size, "big")
    return [
        int.from_bytes(hashlib.shake_256(_DOMAIN + bytes([number]) + written).digest(size + _SPARE_BYTES), "big") % n
        for number in range(PROOF_ROOTS)
    ]
