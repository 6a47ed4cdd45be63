"""Momentum that outlives a round, at 8 bits per value (R3.7)."""

import torch

from vfl.codecs import CODECS

CODEC, BITS = CODECS["block"], 8


def pack(momentum: torch.Tensor, seed: bytes) -> bytes:
    """Rounded at random, so that small changes are not lost for good. Raises Diverged where it is not finite."""
    return CODEC.encode(momentum.reshape(-1).numpy(), BITS, seed, unbiased=True)


def unpack(body: bytes, shape: torch.Size) -> torch.Tensor:
    """Raises InvalidBody."""
    return torch.from_numpy(CODEC.decode(body, shape.numel(), BITS, b"")).reshape(shape)
