"""The baseline of the rotation codec: the same kind of rotation, then equal steps between least and largest value."""

from vfl.codecs.codec import Body, Codec, Floats
from vfl.codecs.hadamard import rotate, rotate_back
from vfl.codecs.uniform import UNIFORM
from vfl.schedule import philox


def encode(values: Floats, bits: int, seed: bytes, *, unbiased: bool) -> bytes:
    return UNIFORM.encode(rotate(values, philox(seed, "minmax")), bits, seed, unbiased=unbiased)


def decode(body: Body, count: int, bits: int, seed: bytes) -> Floats:
    return rotate_back(UNIFORM.decode(body, count, bits, seed), philox(seed, "minmax"))


HADAMARD_MINMAX = Codec(encode, decode, UNIFORM.body_bytes, UNIFORM.stated_error, UNIFORM.widths)
