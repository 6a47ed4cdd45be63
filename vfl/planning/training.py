"""What a training job will do, worked out from its specification before it runs; refuses one no run could satisfy.

Everything here is computed alike by both sides and loads neither torch nor an encryption library.
"""

import math

import msgspec

from crypto.ckks_parameters import PRESETS, RING_DEGREE, ROOMY_VALUES_PER_KEY, SLOTS, CkksPreset, preset_for, weaknesses
from crypto.paillier_parameters import missing_packages
from vfl.errors import ImpossibleJob, PaillierMissing
from vfl.message import Grain
from vfl.planning.paillier_traffic import SCORED_ROWS
from vfl.planning.plan import RevealLine, TrainingPlan
from vfl.planning.traffic import evaluation_rows, expected_bytes
from vfl.planning.traffic import largest_messages as largest_of
from vfl.routes import routes_of_training
from vfl.schedule import batch_sizes
from vfl.spec.encryption import CkksEncryption, PaillierEncryption
from vfl.spec.sections import PartyId
from vfl.spec.training import TrainingSpec

INPUT_BOUND = 3.0
"""Inputs are standardised and clipped by their owner to this many standard deviations (ckks_training.md)."""

NUMBER_BYTES, COPIES = 8, 4
"""Of a number, and how often a worker of an encrypted training holds each of its table."""
ATTEMPTS_AGAIN = 20
"""After so many crashes of either side a training ends."""
OF_EACH_ATTEMPT = frozenset({"RowsDigest", "HeldOut"})
"""The same each time."""
OF_EACH_STEP = frozenset({"Embedding", "CutGradient", "EncryptedError", "OpenedGradient"})
OF_EACH_EPOCH = frozenset({"OpenedLoss", "EpochJudged"})
MINIMUM_BATCH = 64
ROWS_PER_OPENED_VALUE = 4
"""A batch holds at least 64 rows and four per value opened in its step (ckks_training.md)."""


def resolve(spec: TrainingSpec) -> TrainingSpec:
    """The specification with its weight limit, preset and cap per key filled in, as it is proposed and digested."""
    limit = spec.train.weight_limit or preset_for(spec.model.top.kind, loss_of(spec)).weight_limit
    spec = msgspec.structs.replace(spec, train=msgspec.structs.replace(spec.train, weight_limit=limit))
    if isinstance(spec.encryption, PaillierEncryption):
        _check_paillier(spec)
    if not isinstance(spec.encryption, CkksEncryption):
        return spec
    name = spec.ckks.preset
    if name == "auto":
        name = preset_for(spec.model.top.kind, loss_of(spec)).name
    cap = spec.ckks.values_per_key or _preset(name).values_per_key
    encryption = msgspec.structs.replace(spec.ckks, preset=name, values_per_key=cap)
    return msgspec.structs.replace(spec, encryption=encryption)


def loss_of(spec: TrainingSpec) -> str:
    """The form of the loss error: "squared" for regression, else as the specification says."""
    return "squared" if spec.job.task == "regression" else spec.encryption.loss_error


def preset_of(spec: TrainingSpec) -> CkksPreset:
    """The CKKS preset of a resolved specification. Raises LocalProtocolError for a training in clear."""
    return _preset(spec.ckks.preset).for_weights(spec.train.weight_limit)


def plan(spec: TrainingSpec, rows: int) -> TrainingPlan:
    """What a resolved job does on `rows` rows. Raises ImpossibleJob, naming the cause."""
    if spec.job.task == "multiclass" and not spec.job.classes:
        raise ImpossibleJob("job.classes is not set", fix="The label party fills it in when it proposes.")
    if not spec.encrypted and len(spec.model.top.hidden) > 1:
        raise ImpossibleJob(
            f"a top model with {len(spec.model.top.hidden)} hidden layers is not available in clear either",
            fix="Use one: clear training is what encrypted training is compared with.",
        )
    test_rows = spec.split.held_out(rows)
    validation_rows = spec.split.validated(rows)
    training_rows = rows - test_rows - validation_rows
    if training_rows < 1 or test_rows < 1:
        raise ImpossibleJob(f"{rows} rows cannot be split into training and held-out rows")
    validated = spec.validations * spec.outputs / validation_rows if validation_rows else 0.0
    sizes = batch_sizes(training_rows, spec.train.batch_rows)
    steps = len(sizes) * spec.train.epochs
    opened = opened_per_step(spec) if spec.encrypted else 0
    cap, guarded = 0, False
    if isinstance(spec.encryption, CkksEncryption):
        cap, guarded = spec.encryption.values_per_key, _check_ckks(spec, opened)
    elif isinstance(spec.encryption, PaillierEncryption):
        _check_paillier(spec)
        guarded = True
    return TrainingPlan(
        rows=rows,
        training_rows=training_rows,
        test_rows=test_rows,
        validation_rows=validation_rows,
        steps=steps,
        smallest_batch=min([*sizes, validation_rows] if validation_rows else sizes),
        opened_per_step=opened,
        minimum_batch=max(MINIMUM_BATCH, ROWS_PER_OPENED_VALUE * opened) if spec.encrypted else 0,
        rho=max(steps * (spec.hidden or spec.outputs) / training_rows, validated) if spec.encrypted else 0.0,
        values_per_key=cap,
        weight_noise=_weight_noise(spec, sizes) if isinstance(spec.encryption, CkksEncryption) else 0.0,
        guards_deviating_label_party=guarded,
        payload_bytes=expected_bytes(spec, rows, opened, cut_width(spec, spec.roster.features[0])),
        reveals=_reveals(spec, rows, sizes * spec.train.epochs, opened),
    )


def _check_ckks(spec: TrainingSpec, opened: int) -> bool:
    """Whether the cap keeps a key secret even from a label party that deviates. Raises ImpossibleJob."""
    preset, cap = _preset(spec.ckks.preset), spec.ckks.values_per_key
    _refuse(
        weaknesses(preset, len(spec.model.top.hidden), loss_of(spec), INPUT_BOUND),
        f"Use preset `auto`, which takes {preset_for(spec.model.top.kind, loss_of(spec)).name}, "
        "with at most one hidden layer and no cubic error above it.",
    )
    if spec.train.weight_limit > preset.largest_weight_limit:
        _refuse(
            [f"train.weight_limit = {spec.train.weight_limit:g} is too large for preset {preset.name}"],
            f"Use at most {preset.largest_weight_limit:g}: range and noise are sized for it.",
        )
    if cap > ROOMY_VALUES_PER_KEY:
        _refuse([f"encryption.values_per_key = {cap} is too many"], f"Use at most {ROOMY_VALUES_PER_KEY}.")
    if opened > cap:
        _refuse(
            [f"one step opens {opened} values, more than the {cap} one key may open"],
            f"Use fewer columns or classes, or encryption.values_per_key up to {ROOMY_VALUES_PER_KEY}, "
            "which claims nothing against a label party that deviates.",
        )
    return cap < preset.key_owner_margin


def _check_paillier(spec: TrainingSpec) -> None:
    """Raises PaillierMissing, ImpossibleJob."""
    if missing := missing_packages():
        raise PaillierMissing(f"scheme paillier needs {' and '.join(missing)}, and this installation is without")
    if not spec.paillier.limbs:
        _refuse(
            [f"a sum of {spec.paillier.value_bits} bits does not fit a key of {spec.paillier.key_bits}"],
            "Use a lower train.weight_limit or encryption.fraction_bits.",
        )


def largest_messages(spec: TrainingSpec, rows: int) -> dict[str, int]:
    """Payload bytes of one message at most, by kind."""
    return largest_of(spec, rows, opened_per_step(spec), cut_width(spec, spec.roster.features[0]))


def messages_again(spec: TrainingSpec, steps: int, line: RevealLine, intervals: int) -> int:
    """How many more messages of this line leave where so many intervals between checkpoints are taken again."""
    if line.message in OF_EACH_ATTEMPT:
        return line.messages * ATTEMPTS_AGAIN
    if line.message in OF_EACH_STEP:
        return math.ceil(line.messages * min(steps, intervals * spec.train.checkpoint_interval(steps)) / steps)
    if line.message in OF_EACH_EPOCH:
        return min(line.messages, intervals)
    return line.messages * intervals


def memory_bytes(spec: TrainingSpec, party: PartyId, rows: int) -> int:
    """Its table, prepared columns of the parts it works on, and what a step holds: ciphertexts, errors and sums."""
    width, label = spec.data[party].prepared_width, spec.roster.label
    if not spec.encrypted:
        return NUMBER_BYTES * (2 * rows + spec.train.batch_rows) * (width + 1)
    preset, blocks = preset_of(spec), math.ceil(spec.train.batch_rows / SLOTS)
    ciphertext = 2 * NUMBER_BYTES * RING_DEGREE * len(preset.data_moduli)
    embedding = spec.embedding_width(spec.roster.features[0])
    held = opened_per_step(spec) + embedding if party == label else blocks * embedding
    return NUMBER_BYTES * COPIES * rows * (width + 1) + held * ciphertext


def opened_per_step(spec: TrainingSpec) -> int:
    """Gradient sums of one encrypted step: one per weight of the top model."""
    label = spec.roster.label
    width = sum(map(spec.embedding_width, spec.roster.features)) + spec.data[label].prepared_width + 1
    return spec.hidden * width + output_sums(spec) if spec.hidden else spec.outputs * width


def output_sums(spec: TrainingSpec) -> int:
    """How many of them, the last, belong to an output layer above hidden neurons."""
    return spec.outputs * (spec.hidden + 1) if spec.hidden else 0


def cut_width(spec: TrainingSpec, feature: PartyId) -> int:
    """Coordinates of the cut error that goes back: at most the rank of the first top layer."""
    return min(spec.embedding_width(feature), spec.hidden or spec.outputs)


def _weight_noise(spec: TrainingSpec, sizes: list[int]) -> float:
    """Noise of mean gradients carried through descent with momentum; curvature, which only damps it, is left out."""
    if spec.hidden or spec.train.optimiser.name != "sgd" or spec.model.layout == "embeddings":
        return 0.0
    if spec.train.class_weights != "none":  # means over weighted rows carry more, by how much hangs on the labels
        return 0.0
    rate, momentum = spec.train.optimiser.rate, spec.train.optimiser.momentum
    noise = preset_of(spec).relative_noise
    variance, velocity = 0.0, 0.0
    for size in reversed(sizes * spec.train.epochs):
        # The factor by which one gradient's noise reaches the final weight: rate (1 + momentum + ...).
        velocity = rate + momentum * velocity
        filled = SLOTS / (max(1, SLOTS // size) * size)
        variance += math.ceil(size / SLOTS) * (velocity * noise * filled) ** 2
    return math.sqrt(variance)


def _reveals(spec: TrainingSpec, rows: int, batches: list[int], opened: int) -> tuple[RevealLine, ...]:
    """`batches` are the rows of each step of the whole job."""
    steps, row_visits, lines = len(batches), sum(batches), []
    test_rows, validations = spec.split.held_out(rows), spec.validations
    messages = dict.fromkeys(("RowsDigest", "HeldOut", "EvaluationRows"), 1)
    messages |= dict.fromkeys(("CutGradient", "OpenedGradient"), steps)
    messages |= dict.fromkeys(("OpenedLoss", "EpochJudged"), validations) | {"Embedding": steps + validations}
    messages["EncryptedError"] = sum(math.ceil(size / SLOTS) for size in batches)
    scored = math.ceil(test_rows / evaluation_rows(spec)) if spec.encrypted else 0
    messages["EncryptedScores"] = scored
    messages |= {"OpenedSums": steps, "BlurredScores": math.ceil(test_rows / SCORED_ROWS)}
    for route in routes_of_training(spec):
        reveals = route.message.reveals
        for feature in spec.roster.features:
            columns = spec.embedding_width(feature)
            counted = {
                "RowsDigest": 2,
                "HeldOut": rows * spec.split.told_bits,
                "Embedding": (row_visits + validations * spec.split.validated(rows)) * columns,
                "OpenedLoss": validations * spec.outputs,
                "EpochJudged": validations,
                "EvaluationRows": test_rows * columns,
                "OpenedGradient": steps * opened,
                "CutGradient": row_visits * columns,
                "EncryptedError": row_visits * cut_width(spec, feature) + steps * cut_width(spec, feature) * columns,
                "EncryptedScores": test_rows * spec.outputs,
                "OpenedSums": steps * opened,
                "BlurredScores": test_rows * spec.outputs,
            }
            players = {spec.role_of(feature): feature, spec.role_of(spec.roster.label): spec.roster.label}
            kind = route.message.kind()
            totals = (0, 0) if reveals.grain is Grain.NOTHING else (counted[kind], messages[kind])
            lines.append(RevealLine.of(route, players, *totals))
    return tuple(lines)


def _refuse(reasons: list[str], fix: str) -> None:
    if reasons:
        raise ImpossibleJob("; ".join(reasons), fix=fix)


def _preset(name: str) -> CkksPreset:
    if name not in PRESETS:
        raise ImpossibleJob(f"there is no preset {name!r}", fix=f"Use auto or one of {', '.join(PRESETS)}.")
    return PRESETS[name]
