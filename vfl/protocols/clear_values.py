"""Rows of numbers as they travel in clear, and as far as a peer's are believed."""

import numpy as np
from numpy.typing import NDArray

from vfl.errors import RemoteProtocolError
from vfl.models.tensors import floats
from vfl.spec.sections import PartyId

Floats = NDArray[np.float64]

CLEAR_LIMIT = 1e6
"""Largest value a peer may send in clear; standardised columns end at 3."""


def as_bytes(values: Floats) -> bytes:
    return values.astype("<f8").tobytes()


def checked(peer: PartyId, data: bytes, rows: int, width: int) -> Floats:
    """Rows x width. Raises RemoteProtocolError."""
    values = floats(data, rows, width)
    # Beyond the limit nothing honest lies, and sums of a row would leave what a float64 holds.
    if values is None or not (np.abs(values) <= CLEAR_LIMIT).all():
        raise RemoteProtocolError(f"{peer} did not send {rows} rows of {width} numbers up to {CLEAR_LIMIT:g}")
    return values
