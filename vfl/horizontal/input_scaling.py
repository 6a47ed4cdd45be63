"""How a column becomes an input of the network: by agreed ranges, or by mean and deviation pooled over all clients.

Pooling is one secure sum over the roster before round 1: rows, and of each column the sum and the sum of squares, as
whole numbers. Values are clipped to +-2^64 and counted in units of 2^-64, squares in units of 2^-128. All arithmetic
behind the sum is exact, so a column far from zero loses nothing when the square of its mean is taken off.
"""

import json
import math
from dataclasses import astuple
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vfl.errors import ImpossibleJob, RemoteProtocolError, SecureSumFailed
from vfl.horizontal.secure_statistics import digits_of, joined
from vfl.messages import ColumnScaling
from vfl.setup import InputScaling
from vfl.spec.rounds import RoundsSpec
from vfl.spec.rounds_settings import DEVIATIONS

Floats = NDArray[np.float64]

PURPOSE = "rows, sums and sums of squares of columns"
REACH = 2.0**64
"""Values beyond it are clipped to it."""
UNIT = 2**64
"""So many units are 1."""
SUM_DIGITS, SQUARE_DIGITS = 5, 8
WORDS_PER_COLUMN = SUM_DIGITS + SQUARE_DIGITS
MOST_ROWS = 1 << 40
"""Of all clients together."""
SMALLEST_DEVIATION = 2.0**-60
SMALLEST_SHARE = 1e-12
"""A deviation that is a smaller share of the mean is what rounding left of a constant column."""
METADATA = "inputs"
"""Key of a model file's metadata under which its scaling stands."""


def agreed(spec: RoundsSpec) -> InputScaling | None:
    """The scaling that the specification itself gives; None where columns are pooled."""
    if spec.pools_columns:
        return None
    low, high = (np.array(ends) for ends in zip(*spec.model.ranges, strict=True))
    return InputScaling(low, high, low, high - low)


def standardising(means: Floats, deviations: Floats) -> InputScaling:
    bounds = DEVIATIONS * deviations
    return InputScaling(means - bounds, means + bounds, means, deviations)


def message_of(scaling: InputScaling) -> ColumnScaling:
    """As it is handed out where columns are pooled."""
    return ColumnScaling(scaling.zero.tobytes(), scaling.unit.tobytes())


def metadata_of(scaling: InputScaling) -> dict[str, str]:
    """For a model file: with it and the weights a row can be scored."""
    return {METADATA: json.dumps({name: values.tolist() for name, values in vars(scaling).items()})}


def scaling_in(state: bytes) -> InputScaling | None:
    """What a model file says of its inputs; None where it says nothing."""
    if not state:
        return None
    header: dict[str, Any] = json.loads(state[8 : 8 + int.from_bytes(state[:8], "little")])
    text = header.get("__metadata__", {}).get(METADATA)
    return InputScaling(**{name: np.array(values) for name, values in json.loads(text).items()}) if text else None


def of_first_model(spec: RoundsSpec, first_model: bytes) -> InputScaling | None:
    """The scaling to which a registered model is used. Raises ImpossibleJob where the job agreed to another."""
    own, here = scaling_in(first_model), agreed(spec)
    if own is None:
        return here
    pooled = not np.array_equal(own.zero, own.low)
    if pooled and here is None:
        return own
    if here is None or pooled or not all(map(np.array_equal, astuple(own), astuple(here))):
        was = "left model.input_range out" if pooled else f"agreed on model.input_range {_shown(own)}"
        raise ImpossibleJob(
            f"the registered model reads inputs with another scaling: the job that made the model {was}",
            fix="Scale the inputs as that job did, or start from fresh weights.",
        )
    return own


def read_scaling(spec: RoundsSpec, message: ColumnScaling) -> InputScaling:
    """Raises RemoteProtocolError where it does not fit the job's columns."""
    if not len(message.means) == len(message.deviations) == 8 * spec.inputs:
        raise RemoteProtocolError(f"the scaling that the aggregator sent is not for {spec.inputs} columns")
    means, deviations = (np.frombuffer(values, "<f8").copy() for values in (message.means, message.deviations))
    within = np.isfinite(means) & np.isfinite(deviations) & (np.abs(means) <= REACH) & (deviations <= REACH)
    if not (within & (deviations >= SMALLEST_DEVIATION)).all():
        raise RemoteProtocolError("the scaling that the aggregator sent holds numbers that no columns have")
    return standardising(means, deviations)


def words_of(columns: Floats) -> NDArray[np.uint64]:
    """One client's part of the sum: its rows, then the sum and the sum of squares of each column."""
    clipped = np.clip(columns, -REACH, REACH)
    rows, centres = len(clipped), np.where(np.ptp(clipped, axis=0) > 0, clipped.mean(axis=0), clipped[0])
    apart = clipped - centres  # what is left is small, and float64 sums of it are precise
    words = [rows]
    for centre, first, square in zip(
        map(Fraction, centres.tolist()),
        map(Fraction, apart.sum(axis=0).tolist()),
        map(Fraction, (apart**2).sum(axis=0).tolist()),
        strict=True,
    ):
        words += digits_of(round((rows * centre + first) * UNIT), SUM_DIGITS)
        words += digits_of(round((square + 2 * centre * first + rows * centre**2) * UNIT**2), SQUARE_DIGITS)
    return np.array(words, np.uint64)


def words_for(spec: RoundsSpec) -> int:
    return 1 + WORDS_PER_COLUMN * spec.inputs


def pooled_scaling(words: NDArray[np.uint64]) -> tuple[InputScaling, list[int]]:
    """The scaling, and which columns are constant: those become 0.

    Raises SecureSumFailed where no honest clients could sum to it.
    """
    rows, means, deviations, constant = int(words[0]), [], [], []
    for at, column in enumerate(words[1:].reshape(-1, WORDS_PER_COLUMN)):
        total, squares = joined(column[:SUM_DIGITS]), joined(column[SUM_DIGITS:])
        possible = abs(total) <= rows * UNIT**2 and 0 <= squares <= rows * UNIT**4
        if not (1 <= rows < MOST_ROWS and possible):
            raise SecureSumFailed("the sums over columns do not fit any rows: at least one party sent false numbers")
        mean = float(Fraction(total, rows * UNIT))
        deviation = math.sqrt(Fraction(max(rows * squares - total**2, 0), (rows * UNIT) ** 2))
        if deviation < max(SMALLEST_DEVIATION, SMALLEST_SHARE * abs(mean)):
            constant.append(at)
        means.append(mean)
        deviations.append(1.0 if at in constant[-1:] else deviation)
    return standardising(np.array(means), np.array(deviations)), constant


def _shown(scaling: InputScaling) -> str:
    pairs = [f"[{low:g}, {high:g}]" for low, high in zip(scaling.low[:3], scaling.high[:3], strict=True)]
    return ", ".join(pairs) + (", ..." if len(scaling.low) > len(pairs) else "")
