"""Parameters in few bits: for what is stored, sent up and sent down (methods.md 4.2).

A codec turns one float32 vector into exactly `body_bytes` bytes and back; `parameters` turns a model into one body.
"""

from vfl.codecs.codec import Codec, InvalidBody
from vfl.codecs.plain import HALF, NONE
from vfl.codecs.rotation import ROTATION

__all__ = ["CODECS", "Codec", "InvalidBody"]

CODECS: dict[str, Codec] = {
    "none": NONE,
    "half": HALF,
    "rotation": ROTATION,
}
