"""How many bytes of each message a job will send, from its specification and its number of rows alone.

Ciphertexts have one size whatever they hold, so the forecast differs from what travels by the framing of the messages
only; tests hold it to 5 % per message kind that matters.
"""

import math

from crypto.ciphertexts import seeded_bytes
from crypto.ckks_parameters import PRESETS, RING_DEGREE, SLOTS
from crypto.packing import Group, groups_for
from crypto.scoring_parameters import (
    BLOCK_ROWS,
    QUADRATIC_BLOCK_ROWS,
    RowLayout,
    layout_for,
    quadratic_scores_bytes,
    scores_bytes,
    slopes_bytes,
    weights_bytes,
)
from vfl.planning import paillier_traffic
from vfl.schedule import batch_sizes
from vfl.spec.encryption import PaillierEncryption
from vfl.spec.training import TrainingSpec

WORD = 8
POLYNOMIAL = WORD * RING_DEGREE


def expected_bytes(spec: TrainingSpec, rows: int, opened: int, cut_width: int) -> dict[str, int]:
    """Payload bytes by message kind for a whole resolved job; `opened` values and `cut_width` errors per step."""
    test = spec.split.held_out(rows)
    validation = spec.split.validated(rows)
    sizes = batch_sizes(rows - test - validation, spec.train.batch_rows) * spec.train.epochs
    hold_out = {"HeldOut": len(spec.roster.features) * _held_out(spec, rows)} if spec.split.is_told else {}
    if not spec.encrypted:
        return _clear(spec, sizes, validation * spec.validations, test) | hold_out
    if isinstance(spec.encryption, PaillierEncryption):
        return paillier_traffic.expected_bytes(spec, rows) | hold_out
    preset, width = PRESETS[spec.ckks.preset], spec.embedding_width(spec.roster.features[0])
    ciphertext = seeded_bytes(preset.data_moduli, RING_DEGREE)
    blocks = sum(math.ceil(size / SLOTS) for size in sizes)
    masked, steps = _masked(groups_for(opened)), len(sizes)
    steps_per_key = spec.ckks.values_per_key // opened
    forecast = scoring_bytes(spec, test) | {
        "PublicKeys": math.ceil(steps / steps_per_key) * _keys(spec, opened),
        "EncryptedEmbedding": blocks * width * ciphertext,
        "MaskedGradient": steps * masked,
        "OpenedGradient": steps * opened * WORD,
    }
    for _ in range(spec.validations):
        forecast["PublicKeys"] += _keys(spec, spec.outputs)
        forecast["EncryptedEmbedding"] += math.ceil(validation / SLOTS) * width * ciphertext
        forecast["MaskedGradient"] += _masked(groups_for(spec.outputs))
    if spec.validations:
        forecast["OpenedLoss"] = spec.validations * spec.outputs * WORD
    if spec.model.layout == "embeddings":
        forecast["EncryptedError"] = blocks * cut_width * (2 * POLYNOMIAL + WORD * width)
    return forecast | hold_out


def largest_messages(spec: TrainingSpec, rows: int, opened: int, cut_width: int) -> dict[str, int]:
    """Payload bytes of one message at most, by kind; of a kind that is not named a few words."""
    test = spec.split.held_out(rows)
    validation = spec.split.validated(rows)
    batch = max(batch_sizes(rows - test - validation, spec.train.batch_rows))
    if not spec.encrypted:
        width = max(map(spec.embedding_width, spec.roster.features))
        return {
            "HeldOut": _held_out(spec, rows),
            "Embedding": max(batch, validation) * width * WORD,
            "EvaluationRows": test * width * WORD,
            "CutGradient": batch * width * WORD,
        }
    if isinstance(spec.encryption, PaillierEncryption):
        return paillier_traffic.largest_messages(spec, rows)
    preset, width = PRESETS[spec.ckks.preset], spec.embedding_width(spec.roster.features[0])
    ciphertext = seeded_bytes(preset.data_moduli, RING_DEGREE)
    blocks = math.ceil(batch / SLOTS)
    return largest_of_scoring(spec, test) | {
        "HeldOut": _held_out(spec, rows),
        "PublicKeys": _keys(spec, max(opened, spec.outputs)),
        "EncryptedEmbedding": blocks * width * ciphertext,
        "MaskedGradient": _masked(groups_for(opened)),
        "OpenedGradient": opened * WORD,
        "OpenedLoss": spec.outputs * WORD,
        "EncryptedError": blocks * cut_width * (2 * POLYNOMIAL + WORD * width),
    }


def _held_out(spec: TrainingSpec, rows: int) -> int:
    return spec.split.told_bits * math.ceil(rows / 8)


def scoring_bytes(spec: TrainingSpec, rows: int) -> dict[str, int]:
    """Payload bytes by message kind of scoring so many rows on ciphertexts, as a model of this training does."""
    whole = _scores(spec, 0)
    for part in _blocks(spec, rows):
        whole = {kind: whole[kind] + size for kind, size in _scores(spec, part).items()}
    return {"EncryptedWeights": _encrypted_weights(spec)} | whole


def largest_of_scoring(spec: TrainingSpec, rows: int) -> dict[str, int]:
    """The same of one message at most. The last block is the smallest, and may take more polynomials all the same."""
    sizes = [_scores(spec, part) for part in (0, *_blocks(spec, rows))]
    return {"EncryptedWeights": _encrypted_weights(spec)} | {
        kind: max(size[kind] for size in sizes) for kind in sizes[0]
    }


def evaluation_rows(spec: TrainingSpec) -> int:
    """Rows whose scores travel in one message."""
    return QUADRATIC_BLOCK_ROWS if spec.hidden else BLOCK_ROWS


def _blocks(spec: TrainingSpec, rows: int) -> list[int]:
    room = evaluation_rows(spec)
    return [min(room, rows - start) for start in range(0, rows, room)]


def _scores(spec: TrainingSpec, rows: int) -> dict[str, int]:
    """Of one block."""
    if not spec.hidden:
        return {"EncryptedScores": scores_bytes(rows, spec.outputs)}
    layout = _layout(spec)
    return {
        "EncryptedSlopes": slopes_bytes(layout, rows, spec.outputs),
        "EncryptedScores": quadratic_scores_bytes(layout, rows, spec.outputs),
    }


def _encrypted_weights(spec: TrainingSpec) -> int:
    each = _layout(spec).squares if spec.hidden else spec.embedding_width(spec.roster.features[0])
    return weights_bytes(each * spec.outputs)


def _layout(spec: TrainingSpec) -> RowLayout:
    return layout_for(spec.embedding_width(spec.roster.features[0]))


def _clear(spec: TrainingSpec, sizes: list[int], validated: int, test: int) -> dict[str, int]:
    """`validated` rows over all measurements between epochs."""
    width = sum(map(spec.embedding_width, spec.roster.features))
    forecast = {"Embedding": (sum(sizes) + validated) * width * WORD, "EvaluationRows": test * width * WORD}
    if spec.model.layout == "embeddings":
        forecast["CutGradient"] = sum(sizes) * width * WORD
    return forecast


def _masked(groups: tuple[Group, ...]) -> int:
    """One polynomial and the masked words of each group."""
    return sum(POLYNOMIAL + WORD * group.width for group in groups)


def _keys(spec: TrainingSpec, values: int) -> int:
    """A key's public part for releases of so many values."""
    preset = PRESETS[spec.ckks.preset]
    size = seeded_bytes(preset.public_moduli, RING_DEGREE)
    size += (len(preset.key_moduli) - 1) * seeded_bytes(preset.key_moduli, RING_DEGREE)
    widest = max(group.width for group in groups_for(values))
    return size + (widest.bit_length() - 1) * seeded_bytes(preset.release_moduli, RING_DEGREE)
