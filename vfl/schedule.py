"""Which rows are held out and which meet in which batch: a function of (joint seed, number of rows, batch size) alone.

Every side computes the same batches. Neither labels nor any value enters, so the schedule tells nothing. Draws are
counter-based (Philox, Salmon et al. 2011) and permutations are an argsort of raw words, so they do not depend on how a
NumPy release shuffles.
"""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Batch(NamedTuple):
    step: int
    """From 1."""
    steps: int
    epoch: int
    """From 1."""
    last_of_epoch: bool
    rows: NDArray[np.int64]


def batch_sizes(rows: int, batch_rows: int) -> list[int]:
    """Sizes of one epoch's batches; a last one shorter than half a batch joins the one before."""
    full, rest = divmod(rows, batch_rows)
    if full == 0:
        return [rows]
    sizes = [batch_rows] * full
    if rest >= (batch_rows + 1) // 2:
        sizes.append(rest)
    else:
        sizes[-1] += rest
    return sizes


def batches(seed: bytes, rows: NDArray[np.int64], epochs: int, batch_rows: int) -> Iterator[Batch]:
    """All steps of a training, reshuffled each epoch. Steps count from 1 over all epochs."""
    sizes = batch_sizes(len(rows), batch_rows)
    step, steps = 0, len(sizes) * epochs
    for epoch in range(1, epochs + 1):
        order = rows[permutation(seed, f"epoch {epoch}", len(rows))]
        start = 0
        for position, size in enumerate(sizes, 1):
            step += 1
            yield Batch(step, steps, epoch, position == len(sizes), order[start : start + size])
            start += size


def blocks(rows: NDArray[np.int64], largest: int) -> list[NDArray[np.int64]]:
    """A batch cut into as few blocks of nearly one size as hold at most `largest` rows each."""
    return np.array_split(rows, -(-len(rows) // largest))


def held_out_rows(rows: int, share: float) -> int:
    """How many rows are held out: the share, rounded, at least one and never all."""
    return min(max(1, round(rows * share)), max(rows - 1, 0))


def held_out(seed: bytes, rows: int, share: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(training rows, held-out rows), both ascending."""
    order = permutation(seed, "held out", rows)
    test = held_out_rows(rows, share)
    return np.sort(order[test:]), np.sort(order[:test])


def stratified(private_seed: bytes, labels: NDArray[np.float64], share: float) -> NDArray[np.int64]:
    """Held-out rows, ascending: as many as `held_out` takes, each class in its share, at least one where it has two.

    The seed must be the label party's own: with one the peer knows too, it could test any guess of the labels.
    """
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    total = held_out_rows(len(labels), share)
    exact, least = counts * total / len(labels), (counts > 1).astype(np.int64)
    rows_of_class = np.maximum(np.floor(exact).astype(np.int64), least)
    while rows_of_class.sum() < total:
        rows_of_class[(exact - rows_of_class).argmax()] += 1
    while rows_of_class.sum() > total:  # more classes than rows to hold out: the largest give first
        rows_of_class[(rows_of_class - least - exact / len(labels)).argmax()] -= 1
    drawn = [
        np.flatnonzero(codes == at)[permutation(private_seed, f"held out of class {at}", count)[: rows_of_class[at]]]
        for at, count in enumerate(counts)
    ]
    return np.sort(np.concatenate(drawn)).astype(np.int64)


def of_keys(keys: NDArray[np.float64], share: float, *, newest: bool) -> NDArray[np.int64]:
    """Held-out rows, ascending: those of a key below the share, or the newest ones, where keys are times.

    Keys below the share are hashes between 0 and 1: whether a row is held out then hangs on no other row. Of times
    about the share is held out, and rows of the same time stay together.
    """
    if not newest:
        return np.flatnonzero(keys < share).astype(np.int64)
    first = np.sort(keys)[-held_out_rows(len(keys), share)]
    held_out = keys >= first
    return np.flatnonzero(keys > first if held_out.all() else held_out).astype(np.int64)


def permutation(seed: bytes, purpose: str, count: int) -> NDArray[np.int64]:
    words = philox(seed, purpose).random_raw(count)
    return np.argsort(words, kind="stable").astype(np.int64)


def philox(seed: bytes, purpose: str) -> np.random.Philox:
    """The counter-based stream named by (seed, purpose)."""
    key = hashlib.sha256(len(seed).to_bytes(4, "big") + seed + purpose.encode()).digest()
    return np.random.Philox(key=np.frombuffer(key[:16], "<u8"))
