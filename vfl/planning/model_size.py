"""How large a job's model is, counted from its specification alone: nothing is built, whatever a peer asks for."""

import math
from itertools import pairwise

from vfl.spec.job import JobSpec
from vfl.spec.network_names import block_names, widths_of
from vfl.spec.rounds import RoundsSpec
from vfl.spec.sections import PartyId, Role
from vfl.spec.training import TrainingSpec

SMALLEST_SIDE, LARGE_SIDE = 4, 16
"""Pixels below which a picture is not pooled, and from which the stem already halves it."""
NORM_VALUES = {"none": 1, "batch": 4, "group": 2}
"""Per neuron beside its weights: an offset, or scale and offset, and the statistics of the rows seen."""
_WEIGHT_BYTES = {"training": 8, "rounds": 4}


def model_bytes(spec: JobSpec, party: PartyId) -> int:
    """Of this party's part of the model, as it is stored: a feature party's bottom model, a label party's top model.

    In rounds every party holds the same one; a second model with layers of its own counts where it is larger. What a
    party brings as its own bottom module is known to that party alone, and does not count.
    """
    count = _of_rounds(spec) if isinstance(spec, RoundsSpec) else _of_training(spec, party)
    return count * _WEIGHT_BYTES[spec.job.protocol]


def _of_training(spec: TrainingSpec, party: PartyId) -> int:
    if spec.role_of(party) is Role.LABEL:
        inputs = sum(map(spec.embedding_width, spec.roster.features)) + len(spec.data[party].columns)
        return _dense((inputs, *spec.model.top.hidden, spec.outputs))
    bottom = spec.model.bottom
    return (
        _dense((len(spec.data[party].columns), *bottom.hidden, bottom.out)) if bottom and not spec.private_bottom else 0
    )


def _of_rounds(spec: RoundsSpec) -> int:
    model, widths = spec.model, widths_of(spec.model.network, spec.model.hidden)
    largest, second = (
        weights_of(model.network, model.input_shape, widths, spec.outputs, model.norm),
        spec.backbone_decoder,
    )
    if second is not None and second.derive == "student" and second.student_hidden:
        behind = block_names(model.network, model.hidden).index(second.cut) + 1
        student = (*second.student_hidden, *widths[behind:])
        largest = max(largest, weights_of(model.network, model.input_shape, student, spec.outputs, model.norm))
    return largest


def weights_of(network: str, input_shape: tuple[int, ...], widths: tuple[int, ...], outputs: int, norm: str) -> int:
    """Values in the state of a network of rounds, to one counter for each layer with batch normalisation."""
    normed = (NORM_VALUES[norm] - 1) * sum(widths)
    if network == "mlp" or len(input_shape) != 3:  # other shapes are refused where a picture is needed
        return _dense((math.prod(input_shape), *widths, outputs)) + normed
    channels, *side = input_shape
    convolutions = 0
    for number, width in enumerate(widths[:-1]):
        convolutions += (9 * channels + 1) * width
        if not (number and width == channels) and min(side) >= (SMALLEST_SIDE if number else LARGE_SIDE):
            side = [pixels // 2 for pixels in side]
        channels = width
    if min(side) > SMALLEST_SIDE:
        side = [pixels // 2 for pixels in side]
    return convolutions + _dense((channels * math.prod(side), widths[-1], outputs)) + normed


def _dense(widths: tuple[int, ...]) -> int:
    """Weights and offsets of layers that are joined to the whole of the one before."""
    return sum((before + 1) * width for before, width in pairwise(widths))
