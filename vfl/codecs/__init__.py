"""Parameters in few bits: for what is stored, sent up and sent down (codecs.md).

A codec turns one float32 vector into exactly `body_bytes` bytes and back; `parameters` turns a model into one body.
"""

from vfl.codecs.block import BLOCKS
from vfl.codecs.codec import Codec, InvalidBody
from vfl.codecs.grid import GRID
from vfl.codecs.plain import HALF, NONE
from vfl.codecs.rotation import ROTATION
from vfl.codecs.sparse import SPARSE
from vfl.codecs.uniform import UNIFORM

__all__ = ["CODECS", "Codec", "InvalidBody"]

CODECS: dict[str, Codec] = {
    "none": NONE,
    "half": HALF,
    "uniform": UNIFORM,
    "block": BLOCKS,
    "rotation": ROTATION,
    "sparse": SPARSE,
    "grid": GRID,
}
