"""An evaluator that holds one ciphertext of scores, rows at coefficients: the shortest answer with many numbers in it.

Tests of the rules in `crypto.ckks` ask for it. Nothing that is shipped does: rows are scored under a key of the label
party (`crypto.encrypted_weights`).
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from tenseal import sealapi

from crypto.ciphertexts import Seeded, write_seeded
from crypto.ckks import CkksPrivateKey, Masked
from crypto.ckks_context import contexts_of, secret_under, slots_of_coefficients
from crypto.ckks_evaluator import CkksPublicKey, CkksVector
from crypto.ckks_parameters import RING_DEGREE
from crypto.ckks_sums import Mask, PackedSums
from crypto.packing import Group
from crypto.seal_stream import payload, read_ciphertext, read_seeded


def encrypt_coefficients(private: CkksPrivateKey, columns: NDArray[np.float64]) -> bytes:
    """Rows x columns as one seeded ciphertext per column."""
    preset, data, batch = private._preset, contexts_of(private._preset).data, []
    encryptor = sealapi.Encryptor(data.seal, secret_under(private._secret, data))
    for column in columns.T:
        slots = slots_of_coefficients(column, RING_DEGREE)
        plain = data.encode(slots, len(preset.data_moduli), 2.0**preset.embedding_scale)
        words, seed, _ = read_seeded(payload(encryptor.encrypt_symmetric(plain)))
        batch.append(Seeded(words, seed))
    return write_seeded(batch, preset.data_moduli)


def scores(public: CkksPublicKey, columns: list[CkksVector], weights: NDArray[np.float64]) -> list[CkksVector]:
    """Columns weighted by outputs x columns: scalar products keep the rows apart."""
    scale = 2.0**public._preset.sum_scale
    summed = [public._combine(columns, row, scale, rescale=False) for row in weights]
    return [replace(score, ciphertext=public._at(score.ciphertext, 1)) for score in summed]


def score_groups(rows: int, outputs: int) -> tuple[Group, ...]:
    """Rows at consecutive coefficients of one ciphertext per output."""
    return (Group(rows, RING_DEGREE),) * outputs


def mask_scores(public: CkksPublicKey, asked: list[CkksVector]) -> tuple[Masked, Mask]:
    units = [score.ciphertext.scale for score in asked for _ in range(score.rows)]
    groups = score_groups(asked[0].rows, len(asked))
    words = [read_ciphertext(score.ciphertext)[:, 0] for score in asked]
    return public.mask_packed(PackedSums(groups, 1.0, units, words))
