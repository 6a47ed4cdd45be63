"""How many bytes of each message a job will send, from its specification and its number of rows alone.

Ciphertexts have one size whatever they hold, so the forecast differs from what travels by the framing of the messages
only; tests hold it to 5 % per message kind that matters.
"""

import math

from crypto.ciphertexts import seeded_bytes
from crypto.ckks_parameters import PRESETS, RING_DEGREE, SLOTS
from crypto.packing import Group, groups_for
from crypto.scoring_parameters import BLOCK_ROWS, scores_bytes, weights_bytes
from vfl.schedule import batch_sizes
from vfl.spec.training import TrainingSpec

WORD = 8
POLYNOMIAL = WORD * RING_DEGREE
PICKED_ROWS = 1024
"""Rows scored at once by a model with hidden neurons; each is a ciphertext until it is packed."""


def expected_bytes(spec: TrainingSpec, rows: int, opened: int, cut_width: int) -> dict[str, int]:
    """Payload bytes by message kind for a whole resolved job; `opened` values and `cut_width` errors per step."""
    test = spec.split.held_out(rows)
    validation = spec.split.validated(rows)
    sizes = batch_sizes(rows - test - validation, spec.train.batch_rows) * spec.train.epochs
    hold_out = {"HeldOut": len(spec.roster.features) * _held_out(spec, rows)} if spec.split.is_told else {}
    if not spec.encrypted:
        return _clear(spec, sizes, validation * spec.validations, test) | hold_out
    preset, width = PRESETS[spec.ckks.preset], spec.embedding_width(spec.roster.features[0])
    ciphertext = seeded_bytes(preset.data_moduli, RING_DEGREE)
    blocks = sum(math.ceil(size / SLOTS) for size in sizes)
    masked, steps = _masked(groups_for(opened)), len(sizes)
    steps_per_key = spec.ckks.values_per_key // opened
    scoring = scoring_bytes(spec, test)
    forecast = scoring | {
        "PublicKeys": scoring.get("PublicKeys", 0) + math.ceil(steps / steps_per_key) * _keys(spec, opened),
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
    preset, width = PRESETS[spec.ckks.preset], spec.embedding_width(spec.roster.features[0])
    ciphertext = seeded_bytes(preset.data_moduli, RING_DEGREE)
    blocks, scoring = math.ceil(batch / SLOTS), largest_of_scoring(spec, test)
    return scoring | {
        "HeldOut": _held_out(spec, rows),
        "PublicKeys": max(_keys(spec, max(opened, spec.outputs)), scoring.get("PublicKeys", 0)),
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
    room = evaluation_rows(spec)
    parts = [min(room, rows - start) for start in range(0, rows, room)]
    if not spec.hidden:
        return {
            "EncryptedWeights": _encrypted_weights(spec),
            "EncryptedScores": sum(scores_bytes(part, spec.outputs) for part in parts),
        }
    return {
        "PublicKeys": sum(_keys(spec, part * spec.outputs) for part in parts),
        "EncryptedEvaluation": len(parts) * _encrypted_row_block(spec),
        "MaskedScores": sum(_masked(groups_for(part * spec.outputs)) for part in parts),
        "OpenedScores": rows * spec.outputs * WORD,
    }


def largest_of_scoring(spec: TrainingSpec, rows: int) -> dict[str, int]:
    """The same of one message at most."""
    room = min(evaluation_rows(spec), rows)
    if not spec.hidden:
        return {"EncryptedWeights": _encrypted_weights(spec), "EncryptedScores": scores_bytes(room, spec.outputs)}
    # The last part is the smaller one, and may be packed into more groups all the same.
    parts = [part for part in (room, rows % room if room else 0) if part]
    return {
        "PublicKeys": max((_keys(spec, part * spec.outputs) for part in parts), default=0),
        "EncryptedEvaluation": _encrypted_row_block(spec),
        "MaskedScores": max((_masked(groups_for(part * spec.outputs)) for part in parts), default=0),
        "OpenedScores": room * spec.outputs * WORD,
    }


def evaluation_rows(spec: TrainingSpec) -> int:
    """Rows whose scores travel in one message; of a model with hidden neurons, what one key opens."""
    return min(PICKED_ROWS, spec.ckks.values_per_key // spec.outputs) if spec.hidden else BLOCK_ROWS


def _encrypted_weights(spec: TrainingSpec) -> int:
    return weights_bytes(spec.embedding_width(spec.roster.features[0]) * spec.outputs)


def _encrypted_row_block(spec: TrainingSpec) -> int:
    """One ciphertext for each coordinate of the embedding, whatever the number of rows."""
    ciphertext = seeded_bytes(PRESETS[spec.ckks.preset].data_moduli, RING_DEGREE)
    return spec.embedding_width(spec.roster.features[0]) * ciphertext


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
