"""The parts a round can be made of, by name: the only registry of parts."""

from collections.abc import Callable

from vfl.horizontal.hooks import Part
from vfl.spec.rounds import RoundsSpec


def parts_of(spec: RoundsSpec) -> tuple[Part, ...]:
    """The parts of a job in the order of its adjustments; what is carried back comes last."""
    names = sorted(spec.rounds.parts, key=lambda name: name == "backbone_decoder")
    return tuple(PARTS[name]() for name in names)


def _compressed_sync() -> Part:
    from vfl.horizontal.compressed_sync.part import PART  # noqa: PLC0415

    return PART


def _backbone_decoder() -> Part:
    from vfl.horizontal.backbone_decoder.part import PART  # noqa: PLC0415

    return PART


def _model_inversion() -> Part:
    from vfl.horizontal.model_inversion.part import PART  # noqa: PLC0415

    return PART


def _shared_data() -> Part:
    from vfl.horizontal.shared_data.part import PART  # noqa: PLC0415

    return PART


PARTS: dict[str, Callable[[], Part]] = {
    "model_inversion": _model_inversion,
    "shared_data": _shared_data,
    "compressed_sync": _compressed_sync,
    "backbone_decoder": _backbone_decoder,
}
"""Functions that import on demand."""
