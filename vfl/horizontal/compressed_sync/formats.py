"""The agreed terms of compression as formats of bodies (codecs.md): what is stored, what a reply is."""

import math
from collections.abc import Iterable, Mapping

from vfl.codecs.parameters import LARGEST_FACTOR, Format, Integers, Shape, bits_of
from vfl.errors import ImpossibleJob
from vfl.notices import Notice
from vfl.spec.rounds_settings import CompressedSync

REST = {"fp32": "none", "bf16": "half"}
"""How what is not compressed is written."""


def stored_format(terms: CompressedSync, like: Mapping[str, Shape]) -> Format:
    """Of the broadcast, which a client stores as it came. Least error: a residual makes up for its bias (R3.4)."""
    return _format(terms, _stored_codec(terms), _widths(terms, like, terms.stored_bits), unbiased=False)


def reply_format(terms: CompressedSync, like: Mapping[str, Shape], bits: int) -> Format:
    """Of a reply: unbiased, because errors of many clients average out (R3.5). Whole parameters take stored bits."""
    if terms.codec == "sparse":
        return _format(terms, "sparse", max(1, round(1000 * terms.kept_share)), unbiased=True)
    bits = bits if sends_difference(terms) else terms.stored_bits
    return _format(terms, _codec(terms), _widths(terms, like, bits), unbiased=True)


def sends_difference(terms: CompressedSync) -> bool:
    """Where nothing is lost a difference gains nothing, and adding it up again would round (R0.1)."""
    return terms.reply == "difference" and terms.codec != "none"


def compressed_names(like: Mapping[str, Shape], form: Format) -> tuple[str, ...]:
    """The tensors that are written as codes (R3.2)."""
    return tuple(name for name, shape in like.items() if bits_of(name, shape, form))


def _codec(terms: CompressedSync) -> str:
    return "rotation" if terms.codec == "auto" else terms.codec


def _stored_codec(terms: CompressedSync) -> str:
    """Trained in place it is stored as it is worked on; and what top-k leaves out of a whole model would be lost."""
    if terms.codec in {"auto", "sparse"}:
        return "block" if terms.storage == "layers" else "rotation"
    return terms.codec


def _format(terms: CompressedSync, codec: str, bits: int | Mapping[str, int], *, unbiased: bool) -> Format:
    return Format(codec, bits, unbiased=unbiased, rest=REST[terms.precision])


def _widths(terms: CompressedSync, like: Mapping[str, Shape], bits: int) -> int | dict[str, int]:
    """Raises ImpossibleJob where tensor_bits names what is not compressed."""
    compressed = [name for name, shape in like.items() if bits_of(name, shape, Format("none", 1, unbiased=False))]
    if unknown := [name for name in terms.tensor_bits if name not in compressed]:
        raise ImpossibleJob(
            f"rounds.compressed_sync.tensor_bits names {', '.join(unknown)}, and no tensor of this name is compressed",
            fix=f"Compressed tensors of the model that travels: {', '.join(compressed) or 'none'}.",
        )
    return {name: terms.tensor_bits.get(name, bits) for name in compressed} if terms.tensor_bits else bits


def warnings_of(message: str, form: Format, factors: Mapping[str, float]) -> tuple[Notice, ...]:
    """One warning where messages erred more than stated (R3.9); `factors` are measured over stated error by round."""
    if not factors:
        return ()
    worst = max(factors, key=lambda number: factors[number])
    more = f"; in {len(factors)} rounds it was above {LARGEST_FACTOR:g} times" if len(factors) > 1 else ""
    text = f"the error of {message} round {worst} is {factors[worst]:.2f} times what codec {form.codec} states{more}"
    return (Notice("warning", "codec_error", text),)


def values_of(like: Mapping[str, Shape], names: Iterable[str]) -> int:
    """How many values these tensors have together."""
    shapes = (like[name] for name in names)
    return sum(math.prod(shape.shape if isinstance(shape, Integers) else shape) for shape in shapes)
