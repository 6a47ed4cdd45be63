"""What work on Paillier ciphertexts costs here, by the bits of the key: done a few times by the real classes.

Lengths that are not measured are interpolated (`parties.estimates`).
"""

from collections.abc import Callable, Iterator
from itertools import pairwise

from crypto.paillier import PaillierPrivateKey, PaillierPublicKey
from crypto.paillier_parameters import KEY_BITS, SMALLEST_KEY_BITS

NUMBERS, PRODUCTS = 6, 200


def costs(clock: Callable[[], float]) -> Iterator[tuple[str, float]]:
    """(operation with the bits of the key, seconds). `clock` tells processor seconds of this process."""
    for bits in (SMALLEST_KEY_BITS, KEY_BITS):
        for operation, seconds in _of_key(bits, clock).items():
            yield f"{operation}@{bits}", seconds


def _of_key(bits: int, clock: Callable[[], float]) -> dict[str, float]:
    marks = [clock()]
    owner = PaillierPrivateKey(bits)
    material = owner.material
    marks.append(clock())
    other = PaillierPublicKey(material, bits)
    marks.append(clock())
    sent = owner.encrypt(range(NUMBERS))
    marks.append(clock())
    loaded = other.load(sent, NUMBERS)
    marks.append(clock())
    masked, _ = other.mask(loaded)
    marks.append(clock())
    owner.open(masked, NUMBERS)
    marks.append(clock())
    product = loaded[0]
    for _ in range(PRODUCTS):
        product = product * loaded[1] % other.square
    marks.append(clock())
    key, checked, encrypted, read, power, opened, products = (after - before for before, after in pairwise(marks))
    each = {"encryption": encrypted, "loaded": read, "power": power, "opened": opened}
    whole = {"key": key, "checked key": checked, "multiplication": products / PRODUCTS}
    return whole | {operation: seconds / NUMBERS for operation, seconds in each.items()}
