"""The work of a training on Paillier ciphertexts, counted in operations on numbers as long as its key."""

from collections.abc import Iterator

import numpy as np

from crypto.paillier_parameters import PaillierParameters
from crypto.paillier_work import multiplications
from vfl.planning.paillier_traffic import scored_blocks
from vfl.planning.plan import TrainingPlan
from vfl.planning.work import REPORT, Counts, Turn, added, sends, times
from vfl.schedule import batch_sizes
from vfl.spec.training import TrainingSpec


def work(spec: TrainingSpec, plan: TrainingPlan) -> Iterator[Turn]:
    """The steps of `paillier_training`."""
    label, (feature,) = spec.roster.label, spec.roster.features
    p, sent = spec.paillier, plan.payload_bytes
    width, own, outputs = spec.embedding_width(feature), spec.data[label].prepared_width + 1, spec.outputs
    chunks, steps = len(p.chunks(width)), plan.steps
    opened = p.opened_numbers(width, own - 1, outputs)
    blocks = [len(block) for block in scored_blocks(np.arange(plan.test_rows))]
    masked_scores = sum(p.ciphertexts_bytes(len(p.score_groups(rows)) * outputs) for rows in blocks)

    yield Turn("start", 1, {feature: _of_key({"key": 1}, p)})
    yield Turn("start", 1, sends(feature, 1, sent["PaillierKey"]))
    yield Turn("start", 1, {label: _of_key({"checked key": 1}, p)})
    sizes = batch_sizes(plan.training_rows, spec.train.batch_rows)
    rows_of_epoch = sum(sizes)
    for number, rows in ((1, rows_of_epoch), (spec.train.epochs - 1, 0)):
        encrypted = rows * chunks + len(sizes) * width * chunks
        # While these are encrypted the other side prepares its masks.
        yield Turn(
            "steps",
            number,
            {
                feature: _of_key({"encryption": encrypted}, p),
                label: _of_key({"power": len(sizes) * opened, "loaded": rows * chunks}, p),
            },
        )
    yield Turn("steps", 1, sends(feature, len(sizes), sent["EncryptedRows"]))
    yield Turn("steps", 1, sends(feature, steps, sent["EncryptedMoments"]))
    for rows in dict.fromkeys(sizes):
        of_size = spec.train.epochs * sizes.count(rows)
        yield Turn("steps", of_size, {label: _of_key(_sums(p, rows, width, own, outputs), p)})
    yield Turn("steps", 1, sends(label, steps, sent["MaskedNumbers"] - masked_scores))
    yield Turn("steps", steps, {feature: _of_key({"opened": opened}, p) | {REPORT: 1}})
    yield Turn("steps", 1, sends(feature, steps, sent["OpenedSums"]))
    yield Turn("steps", steps, {label: {"clear/step": 1, REPORT: 1}})

    groups = sum(len(p.score_groups(rows)) for rows in blocks)
    scored: Counts = {"multiplication": multiplications(width, p.fraction_bits), "power": 1}
    yield Turn("scores", 1, {feature: _of_key({"encryption": groups * width}, p)})
    yield Turn("scores", 1, sends(feature, len(blocks), sent["EncryptedColumns"]))
    yield Turn("scores", 1, {label: _of_key(added(times(groups * outputs, scored), {"loaded": groups * width}), p)})
    yield Turn("scores", 1, sends(label, len(blocks), masked_scores))
    yield Turn("scores", 1, {feature: _of_key({"opened": groups * outputs}, p)})
    yield Turn("scores", 1, sends(feature, len(blocks), sent["BlurredScores"]))


def _sums(p: PaillierParameters, rows: int, width: int, own: int, outputs: int) -> Counts:
    """What the label party computes of one batch; its weights and errors are taken as about 1."""
    bits, chunks = p.fraction_bits, len(p.chunks(width))
    of_rows = multiplications(rows, bits)
    of_chunk = multiplications(width, bits) + of_rows + p.fraction_bits
    long = p.limbs * p.limb_bits / p.key_bits
    """A power of reversed limbs against one whose exponent is as long as the key."""
    return {
        "multiplication": chunks * (outputs * of_chunk + own * of_rows),
        "power": outputs * own * chunks * long,
        "loaded": width * chunks,
    }


def _of_key(counts: Counts, p: PaillierParameters) -> Counts:
    return {f"paillier/{operation}@{p.key_bits}": count for operation, count in counts.items()}
