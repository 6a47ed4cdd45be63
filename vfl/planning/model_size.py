"""How large a job's model is, counted from its specification alone: nothing is built, whatever a peer asks for."""

import math
from itertools import pairwise

from vfl.spec.network_names import block_names, widths_of
from vfl.spec.rounds import RoundsSpec
from vfl.spec.sections import PartyId
from vfl.spec.training import TrainingSpec

DOUBLE, SINGLE = 8, 4
"""Bytes of a weight: training is in double precision, rounds are in single."""
SMALLEST_SIDE, LARGE_SIDE = 4, 16
"""Pixels below which an image is not pooled, and from which the stem already halves it."""
NORM_VALUES = {"none": 1, "batch": 4, "group": 2}
"""Per neuron beside its weights: an offset, or scale and offset, and the statistics of the rows seen."""


def bytes_of_training(spec: TrainingSpec, party: PartyId) -> int:
    """Of a feature party's bottom model or the label party's top model, as it is stored.

    What a party brings as its own bottom module is known to that party alone, and does not count.
    """
    if party == spec.roster.label:
        inputs = sum(map(spec.embedding_width, spec.roster.features)) + spec.data[party].prepared_width
        return DOUBLE * _dense((inputs, *spec.model.top.hidden, spec.outputs))
    bottom = spec.model.bottom
    if bottom is None or spec.private_bottom:
        return 0
    return DOUBLE * _dense((spec.data[party].prepared_width, *bottom.hidden, bottom.out))


def bytes_of_rounds(spec: RoundsSpec) -> int:
    """Of the model as it is stored, the same at every party; a larger second model with its own layers counts."""
    model, widths = spec.model, widths_of(spec.model.network, spec.model.hidden)
    largest, second = (
        weights_of(model.network, model.input_shape, widths, spec.outputs, model.norm),
        spec.backbone_decoder,
    )
    if second is not None and second.derive == "student" and second.student_hidden:
        behind = block_names(model.network, model.hidden).index(second.cut) + 1
        student = (*second.student_hidden, *widths[behind:])
        largest = max(largest, weights_of(model.network, model.input_shape, student, spec.outputs, model.norm))
    return SINGLE * largest


def weights_of(network: str, input_shape: tuple[int, ...], widths: tuple[int, ...], outputs: int, norm: str) -> int:
    """Values in the state of a network of rounds, to one counter for each layer with batch normalisation."""
    normed = (NORM_VALUES[norm] - 1) * sum(widths)
    if network == "mlp" or len(input_shape) != 3:  # other shapes are refused where an image is needed
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
