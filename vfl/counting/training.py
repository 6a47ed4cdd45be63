"""The work of a training, counted: steps, measurements between epochs, and the scores of the held-out rows."""

import math
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from crypto.ckks_parameters import SLOTS
from vfl.counting import ciphertexts, paillier
from vfl.counting.costs import PASSES
from vfl.counting.scoring import encrypted_scores, starts
from vfl.planning.plan import TrainingPlan
from vfl.planning.training import cut_width, opened_per_step, preset_of
from vfl.planning.work import REPORT, Counts, Turn, added, sends, times
from vfl.schedule import batch_sizes
from vfl.spec.encryption import PaillierEncryption
from vfl.spec.sections import PartyId
from vfl.spec.training import TrainingSpec


def work(spec: TrainingSpec, plan: TrainingPlan) -> Iterator[Turn]:
    libraries, steps = {"clear/start": 1.0}, _clear
    if isinstance(spec.encryption, PaillierEncryption):
        libraries, steps = {"paillier/start": 1.0}, paillier.work
    elif spec.encrypted:
        libraries = {"ckks/start": 1.0, f"ckks/contexts@{len(preset_of(spec).data_moduli)}": 1.0}
        steps = _encrypted
    yield starts(spec, libraries)
    yield from _all_equal(spec, plan)
    yield from steps(spec, plan)


def _all_equal(spec: TrainingSpec, plan: TrainingPlan) -> Iterator[Turn]:
    """Rows are compared; each party prepares its columns, and stores what an epoch leaves."""
    label = spec.roster.label
    prepared = {party: {"clear/number": plan.rows * own.prepared_width} for party, own in spec.data.items()}
    yield Turn("start", 1, {party: added(counts, {"clear/step": 1}) for party, counts in prepared.items()})
    yield Turn("start", 1, sends(label, 1, plan.payload_bytes.get("HeldOut", 0)))
    yield Turn("steps", spec.train.epochs, {party: {REPORT: 1} for party in spec.parties})


def _clear(spec: TrainingSpec, plan: TrainingPlan) -> Iterator[Turn]:
    label, features = spec.roster.label, spec.roster.features
    row_bytes = {feature: 8 * spec.embedding_width(feature) for feature in features}
    learns = spec.model.layout == "embeddings"
    for size, steps in _sizes(spec, plan).items():
        yield Turn("steps", steps, {feature: _forward(spec, feature, size) for feature in features})
        for feature in features:
            yield Turn("steps", steps, sends(feature, 1, size * row_bytes[feature]))
        width = sum(row_bytes.values()) // 8 + spec.data[label].prepared_width + 1
        products = PASSES * size * width * (spec.hidden or spec.outputs)
        yield Turn("steps", steps, {label: {"clear/step": 1, "clear/number": products, REPORT: 1}})
        for feature in features:
            yield Turn("steps", steps, sends(label, 1, size * row_bytes[feature] if learns else 0))
        if learns:
            yield Turn("steps", steps, {feature: _backward(spec, feature, size) for feature in features})
    for feature in features:
        validated = spec.split.validated(plan.rows) * row_bytes[feature]
        yield Turn("steps", spec.validations, sends(feature, 1, validated))
        yield Turn("scores", 1, sends(feature, 1, plan.test_rows * row_bytes[feature]))


def _encrypted(spec: TrainingSpec, plan: TrainingPlan) -> Iterator[Turn]:
    label, (feature,) = spec.roster.label, spec.roster.features
    preset, opened, width = preset_of(spec), opened_per_step(spec), spec.embedding_width(feature)
    learns, sent = spec.model.layout == "embeddings", plan.payload_bytes
    validated = math.ceil(spec.split.validated(plan.rows) / SLOTS)
    keys = math.ceil(plan.steps / (spec.ckks.values_per_key // opened))
    up = sum(sent.get(kind, 0) for kind in ("EncryptedEmbedding", "OpenedGradient", "OpenedLoss"))
    up += sent["PublicKeys"]
    down = sum(sent.get(kind, 0) for kind in ("MaskedGradient", "EncryptedError"))
    yield Turn("steps", keys, {feature: ciphertexts.key(preset, opened)})
    yield Turn("steps", keys, sends(feature, 1, 0))
    yield Turn("steps", keys, {label: ciphertexts.loaded_key(preset, opened)})
    for size, steps in _sizes(spec, plan).items():
        parts = math.ceil(size / SLOTS)
        encrypts = added(_forward(spec, feature, size), ciphertexts.encrypted(preset, parts * width))
        computes = added(ciphertexts.label_step(spec, parts), {"clear/step": 1})
        answers: Counts = added(ciphertexts.opened(opened), {REPORT: 1})
        if learns:
            rank = parts * cut_width(spec, feature)
            computes = added(computes, {"ckks/cut error": rank})
            answers = added(answers, {"ckks/decrypted cut error": rank}, _backward(spec, feature, size))
            yield Turn("steps", steps, {feature: encrypts})
            yield Turn("steps", steps, {label: computes})
        else:  # the feature party encrypts the next batch while the label party computes
            yield Turn("steps", steps, {feature: encrypts, label: computes})
        yield Turn("steps", steps, {feature: answers})
        yield Turn("steps", steps, {label: {"clear/step": 1, REPORT: 1}})
        yield Turn("steps", steps, sends(feature, 1 + parts, up / plan.steps))
        yield Turn("steps", steps, sends(label, 1 + (parts if learns else 0), down / plan.steps))
    if spec.validations:
        outputs = spec.outputs
        yield Turn(
            "steps",
            spec.validations,
            {
                feature: added(
                    ciphertexts.key(preset, outputs),
                    ciphertexts.encrypted(preset, validated * width),
                    ciphertexts.opened(outputs),
                )
            },
        )
        computes = added(ciphertexts.loaded_key(preset, outputs), ciphertexts.label_validation(spec, validated))
        yield Turn("steps", spec.validations, {label: computes})
        yield Turn("steps", spec.validations, sends(feature, 2 + validated, 0))
        yield Turn("steps", spec.validations, sends(label, 1, 0))
    yield from encrypted_scores(spec, plan.test_rows)


def _sizes(spec: TrainingSpec, plan: TrainingPlan) -> dict[int, int]:
    """Rows of a batch: in how many steps of the whole job."""
    counted = Counter(batch_sizes(plan.training_rows, spec.train.batch_rows))
    return {size: number * spec.train.epochs for size, number in counted.items()}


def _forward(spec: TrainingSpec, feature: PartyId, rows: int) -> Counts:
    counts: Counts = {"clear/step": 1, "clear/number": rows * spec.data[feature].prepared_width}
    return added(counts, times(1 / PASSES, _network(spec, feature, rows)))


def _backward(spec: TrainingSpec, feature: PartyId, rows: int) -> Counts:
    return times(1 - 1 / PASSES, _network(spec, feature, rows))


def _network(spec: TrainingSpec, feature: PartyId, rows: int) -> Counts:
    """A step of a bottom network; of a party's own module nothing is known but its step."""
    bottom = spec.model.bottom
    if bottom is None:
        return {}
    widths = (spec.data[feature].prepared_width, *bottom.hidden, bottom.out)
    products = sum(before * after for before, after in pairwise(widths))
    return {"torch/step": len(widths) - 1, "torch/product": PASSES * rows * products}
