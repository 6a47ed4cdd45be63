"""A client's trained parameters as whole numbers that add: what secure sums carry of a round (codecs.md, `grid`).

    v = n/cap (trained - received), cut to norm C        C and cap are public, from the round before
    codes of v on the grid all share, then in digits of the codes' width: n, the cut norm in units of C, the loss

The sum of all that gives sum v / sum n/cap, the mean difference, and nothing of a single client. Variances travel as
second moments, so that their mean is that of the pooled rows (R0.3).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vfl.codecs.grid import from_sum, to_codes, word_bits
from vfl.models.networks import Parameters, norm_statistics_names
from vfl.secure_sum.terms import SumTerms, majority
from vfl.spec.rounds import RoundsSpec

PURPOSE, ROWS_PURPOSE = "updates", "rows"
PLAIN_BITS = 16
"""Of codes where no part says how many."""
FRACTION_BITS = 16
COUNT_BITS = 31
LARGEST_LOSS = 1 << 30
"""In units of the fraction: 16,384."""
CLIP_GROWTH, CAP_GROWTH = 1.5, 4.0
"""The next C is 1.5 times the mean norm (codecs.md); a client counts for four times the mean rows at most."""


@dataclass(frozen=True)
class ClippingBounds:
    """What a round's numbers are measured in; public."""

    clip: float
    """C: no scaled difference is longer."""
    cap: float
    """Rows at which a client's weight is one, and beyond which it does not grow."""


def bounds_of(numbers: tuple[float, ...]) -> ClippingBounds | None:
    """As it came in a task; None where it is none."""
    if len(numbers) != 2 or not 1e-9 < numbers[0] < 1e9 or not 1 <= numbers[1] < 1 << 33:
        return None
    return ClippingBounds(*numbers)


def first_bounds(parameters: Parameters, mean_rows: float) -> ClippingBounds:
    """Of the first round: nothing has been measured yet but the model and the pooled rows."""
    norm = math.sqrt(sum(float((v.double() ** 2).sum()) for v in parameters.values() if v.is_floating_point()))
    return ClippingBounds(clip=max(norm / 2, 1e-3), cap=max(1.0, math.ceil(CAP_GROWTH * mean_rows)))


@dataclass(frozen=True)
class Summed:
    """What a sum says of a round."""

    parameters: Parameters
    rows: int
    loss: float
    mean_norm: float
    """Of the clients' cut differences; the next C follows from it."""


def next_bounds(summed: Summed, clients: int) -> ClippingBounds:
    """A little more room than the clients have just needed."""
    cap = max(1.0, math.ceil(CAP_GROWTH * summed.rows / clients))
    return ClippingBounds(clip=max(CLIP_GROWTH * summed.mean_norm, 1e-6), cap=cap)


class UpdateSums:
    """The layout of the vector for one model; the same at every party."""

    def __init__(self, spec: RoundsSpec, like: Parameters) -> None:
        compressed = spec.compressed_sync
        self._spec = spec
        self.bits = compressed.reply_bits if compressed is not None else PLAIN_BITS
        self.word_bits = max(word_bits(self.bits, spec.cohort), compressed.word_bits if compressed is not None else 0)
        self.word_bits = 8 * math.ceil(self.word_bits / 8)
        self._shapes = {name: values.shape for name, values in like.items() if values.is_floating_point()}
        self._second_moment = {pair.variance: pair.mean for pair in norm_statistics_names(like)}
        self.values = sum(math.prod(shape) for shape in self._shapes.values())
        self._digits = [math.ceil(bits / self.bits) for bits in (COUNT_BITS, FRACTION_BITS + 1, COUNT_BITS)]

    def terms(self, round_number: int, bounds: ClippingBounds) -> SumTerms:
        return SumTerms(
            job=self._spec.digest(),
            round=round_number,
            purpose=PURPOSE,
            roster=self._spec.roster.clients,
            words=self.values + sum(self._digits),
            word_bits=self.word_bits,
            threshold=majority(self._spec.cohort),
            numbers=(bounds.clip, bounds.cap),
        )

    def words(
        self,
        received: Parameters,
        trained: Parameters,
        rows: int,
        loss: float,
        bounds: ClippingBounds,
        shared_seed: bytes,
        own_seed: bytes,
    ) -> NDArray[np.uint64]:
        """One client's vector. Raises Diverged where a value is not finite."""
        rows = min(rows, int(bounds.cap))
        scaled = (self._flat(trained) - self._flat(received)) * np.float32(rows / bounds.cap)
        codes = to_codes(scaled, bounds.clip, self.bits, shared_seed, own_seed)
        length = min(float(np.linalg.norm(scaled.astype(np.float64))), bounds.clip) / bounds.clip
        extras = (rows, round(length * (1 << FRACTION_BITS)), min(round(loss * (1 << FRACTION_BITS)), LARGEST_LOSS))
        digits = [self._spread(number, count) for number, count in zip(extras, self._digits, strict=True)]
        return np.concatenate([codes.astype(np.uint64), *digits])

    def read(
        self, total: NDArray[np.uint64], clients: int, received: Parameters, bounds: ClippingBounds, shared_seed: bytes
    ) -> Summed | None:
        """The mean of the clients in the sum; None where the sum says that they have no rows, which no client says."""
        codes, rest = total[: self.values], total[self.values :]
        extras = []
        for count in self._digits:
            extras.append(self._joined(rest[:count]))
            rest = rest[count:]
        rows, length, loss = extras
        if not 0 < rows <= clients * bounds.cap or length > clients << FRACTION_BITS or loss > clients * LARGEST_LOSS:
            return None
        mean = from_sum(codes, clients, bounds.clip, self.bits, shared_seed) * np.float32(bounds.cap / rows)
        return Summed(
            parameters=self._shaped(self._flat(received) + mean, received),
            rows=rows,
            loss=loss / (1 << FRACTION_BITS) / clients,
            mean_norm=length / (1 << FRACTION_BITS) / clients * bounds.clip,
        )

    def _flat(self, parameters: Parameters) -> NDArray[np.float32]:
        parts = []
        for name in self._shapes:
            values = parameters[name]
            if name in self._second_moment:
                values = values + parameters[self._second_moment[name]] ** 2
            parts.append(values.reshape(-1).numpy())
        return np.concatenate(parts)

    def _shaped(self, flat: NDArray[np.float32], received: Parameters) -> Parameters:
        """The inverse; buffers of whole numbers stay as they were."""
        parameters, start = dict(received), 0
        for name, shape in self._shapes.items():
            count = math.prod(shape)
            parameters[name] = torch.from_numpy(flat[start : start + count].reshape(shape).copy())
            start += count
        for variance, mean in self._second_moment.items():
            parameters[variance] = (parameters[variance] - parameters[mean] ** 2).clamp_(min=0)
        return parameters

    def _spread(self, number: int, digits: int) -> NDArray[np.uint64]:
        """A whole number in digits as wide as a code, so that the sum of each fits a word."""
        return np.array([(number >> (self.bits * at)) & ((1 << self.bits) - 1) for at in range(digits)], np.uint64)

    def _joined(self, sums: NDArray[np.uint64]) -> int:
        return sum(int(digit) << (self.bits * at) for at, digit in enumerate(sums))
