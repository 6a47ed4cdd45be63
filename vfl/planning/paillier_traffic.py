"""How many bytes of each message a training on Paillier ciphertexts will send: numbers of one length, counted."""

import math

import numpy as np
from numpy.typing import NDArray

from crypto.paillier_parameters import PROOF_ROOTS
from vfl.schedule import batch_sizes
from vfl.spec.training import TrainingSpec

SCORED_ROWS = 4096
"""Rows whose scores travel in one message."""


def scored_blocks(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [rows[start : start + SCORED_ROWS] for start in range(0, len(rows), SCORED_ROWS)]


def expected_bytes(spec: TrainingSpec, rows: int) -> dict[str, int]:
    """Payload bytes by message kind for a whole resolved job."""
    test, sizes = spec.split.held_out(rows), _batches(spec, rows)
    steps, blocks = len(sizes) * spec.train.epochs, _score_blocks(test)
    of_step = _of_step(spec)
    return {
        "PaillierKey": _of_key(spec),
        "EncryptedRows": sum(_of_rows(spec, size) for size in sizes),
        "EncryptedMoments": steps * of_step["EncryptedMoments"],
        "MaskedNumbers": steps * of_step["MaskedNumbers"] + sum(_of_masked_scores(spec, size) for size in blocks),
        "OpenedSums": steps * of_step["OpenedSums"],
        "EncryptedColumns": sum(_of_columns(spec, size) for size in blocks),
        "BlurredScores": sum(_of_scores(spec, size) for size in blocks),
    }


def largest_messages(spec: TrainingSpec, rows: int) -> dict[str, int]:
    """Payload bytes of one message at most, by kind."""
    blocks, of_step = _score_blocks(spec.split.held_out(rows)), _of_step(spec)
    return {
        "HeldOut": math.ceil(rows / 8),
        "PaillierKey": _of_key(spec),
        "EncryptedRows": max(_of_rows(spec, size) for size in _batches(spec, rows)),
        "EncryptedMoments": of_step["EncryptedMoments"],
        "MaskedNumbers": max([of_step["MaskedNumbers"], *(_of_masked_scores(spec, size) for size in blocks)]),
        "OpenedSums": of_step["OpenedSums"],
        "EncryptedColumns": max(_of_columns(spec, size) for size in blocks),
        "BlurredScores": max(_of_scores(spec, size) for size in blocks),
    }


def _batches(spec: TrainingSpec, rows: int) -> list[int]:
    """Rows of each batch of one epoch."""
    return batch_sizes(rows - spec.split.held_out(rows), spec.train.batch_rows)


def _score_blocks(rows: int) -> list[int]:
    return [len(block) for block in scored_blocks(np.arange(rows))]


def _width(spec: TrainingSpec) -> int:
    return spec.embedding_width(spec.roster.features[0])


def _of_key(spec: TrainingSpec) -> int:
    return (1 + PROOF_ROOTS) * spec.paillier.number_bytes


def _of_rows(spec: TrainingSpec, rows: int) -> int:
    return spec.paillier.ciphertexts_bytes(rows * len(spec.paillier.chunks(_width(spec))))


def _of_step(spec: TrainingSpec) -> dict[str, int]:
    """Without the rows."""
    own = spec.data[spec.roster.label].prepared_width
    opened = spec.paillier.opened_numbers(_width(spec), own, spec.outputs)
    return {
        "EncryptedMoments": _of_rows(spec, _width(spec)),
        "MaskedNumbers": spec.paillier.ciphertexts_bytes(opened),
        "OpenedSums": spec.paillier.numbers_bytes(opened),
    }


def _of_columns(spec: TrainingSpec, rows: int) -> int:
    return spec.paillier.ciphertexts_bytes(len(spec.paillier.score_groups(rows)) * _width(spec))


def _of_masked_scores(spec: TrainingSpec, rows: int) -> int:
    return spec.paillier.ciphertexts_bytes(len(spec.paillier.score_groups(rows)) * spec.outputs)


def _of_scores(spec: TrainingSpec, rows: int) -> int:
    return spec.paillier.numbers_bytes(len(spec.paillier.score_groups(rows)) * spec.outputs)
