"""Synthetic images: a classification set of any size that comes from a seed alone, for tests of scale.

A class is a smooth pattern of a few plane waves. An image is its class's pattern, shifted by up to an eighth of its
sides, with a contrast and noise of its own: easy enough to be learned in a few rounds, too hard for one pixel to tell.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vfl.errors import ImpossibleJob
from vfl.schedule import philox

WAVES = 6
SLOWEST, FASTEST = 0.5, 3.0
"""Periods of a wave along a side."""
NOISE = 0.25
LEAST_CONTRAST = 0.5
DRAWS = "pictures"
"""What the seeds of these draws are named: another name would give other images from the same seed."""


class SyntheticImages(NamedTuple):
    pixels: NDArray[np.float64]
    """rows x pixels, in [0, 1], a row being (channels, height, width) in a line."""
    labels: NDArray[np.float64]
    """rows; classes from 0, each as often as the others up to one."""


def synthetic_images(seed: bytes, rows: int, shape: tuple[int, ...], classes: int) -> SyntheticImages:
    """Raises ImpossibleJob where `shape` is not (channels, height, width)."""
    if len(shape) != 3:
        raise ImpossibleJob(
            f"synthetic images cannot be generated in shape {shape}",
            fix="Set model.input_shape to [channels, height, width].",
        )
    draws = np.random.Generator(philox(seed, DRAWS))
    channels, height, width = shape
    labels = draws.permutation(np.arange(rows) % classes)
    frequencies = draws.uniform(SLOWEST, FASTEST, (classes, channels, WAVES, 2)) * draws.choice(
        [-1, 1], (classes, channels, WAVES, 2)
    )
    phases = draws.uniform(0, 1, (classes, channels, WAVES))
    shifts = draws.uniform(-0.125, 0.125, (rows, 2))
    contrasts = draws.uniform(LEAST_CONTRAST, 1.0, rows)
    down = np.arange(height) / height
    across = np.arange(width) / width
    pixels = np.empty((rows, channels, height, width))
    for label in range(classes):
        mine = np.flatnonzero(labels == label)
        y = (down + shifts[mine, :1])[:, None, None, :, None]
        x = (across + shifts[mine, 1:])[:, None, None, None, :]
        along = frequencies[label][None, ..., None, None]
        turns = along[:, :, :, 0] * y + along[:, :, :, 1] * x + phases[label][None, ..., None, None]
        pixels[mine] = np.sin(2 * np.pi * turns).mean(axis=2)
    pixels *= contrasts[:, None, None, None]
    pixels += draws.normal(0, NOISE, pixels.shape)
    return SyntheticImages(np.clip((pixels + 1) / 2, 0, 1).reshape(rows, -1), labels.astype(np.float64))
