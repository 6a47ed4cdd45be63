"""The work of scoring rows with the two halves of a model, counted: of held-out rows as of new ones."""

import math
from collections.abc import Iterator

from crypto.scoring_parameters import DEGREE
from vfl.counting import ciphertexts
from vfl.planning.prediction import rows_of_block
from vfl.planning.traffic import evaluation_rows, scoring_bytes
from vfl.planning.training import preset_of
from vfl.planning.work import REPORT, START, Counts, Turn, added, sends
from vfl.spec.prediction import PredictionSpec
from vfl.spec.training import TrainingSpec

REQUEST = "one request"
"""The phase of a session in which one row is asked for."""


def starts(spec: TrainingSpec) -> Turn:
    """The processes that compute, with the libraries that they load."""
    libraries = {START: 1.0}
    if spec.encrypted:
        libraries |= {"ckks/start": 1, f"ckks/contexts@{len(preset_of(spec).data_moduli)}": 1}
    network = {"torch/start": 1.0} if spec.model.bottom is not None else {}
    label = spec.roster.label
    return Turn(
        "start", 1, {party: libraries if party == label else added(libraries, network) for party in spec.parties}
    )


def of_prediction(spec: PredictionSpec, rows: int) -> Iterator[Turn]:
    trained, session = spec.trained, spec.session is not None
    yield starts(trained)
    yield Turn("start", 1, {party: {"clear/step": 1, REPORT: 1} for party in spec.parties})
    yield Turn("start", 1, sends(spec.roster.label, 1, 0))
    if not trained.encrypted:
        yield from _clear_scores(spec, 1 if session else rows)
    elif session:
        yield from _opening(trained, "start")
        yield from _blocks(trained, 1, REQUEST)
    else:
        yield from encrypted_scores(trained, rows)
    if session:
        yield Turn(REQUEST, 1, sends(spec.roster.label, 1, 8))


def encrypted_scores(spec: TrainingSpec, rows: int) -> Iterator[Turn]:
    """Steps 12 to 14 of `ckks_scoring`."""
    yield from _opening(spec, "scores")
    yield from _blocks(spec, rows, "scores")


def _opening(spec: TrainingSpec, phase: str) -> Iterator[Turn]:
    """The weights of a linear model; one with hidden neurons has a key for each block."""
    label, (feature,) = spec.roster.label, spec.roster.features
    weights = spec.embedding_width(feature) * spec.outputs
    if not spec.hidden:
        yield Turn(phase, 1, {label: {"ckks/weights key": 1, "ckks/encrypted weight": weights}})
        yield Turn(phase, 1, sends(label, 1, scoring_bytes(spec, 1)["EncryptedWeights"]))
        yield Turn(phase, 1, {feature: {"ckks/loaded weight": weights}})


def _blocks(spec: TrainingSpec, rows: int, phase: str) -> Iterator[Turn]:
    label, (feature,) = spec.roster.label, spec.roster.features
    width, outputs, sizes = spec.embedding_width(feature), spec.outputs, scoring_bytes(spec, rows)
    blocks = math.ceil(rows / evaluation_rows(spec))
    if not spec.hidden:
        in_ring = math.ceil(rows / DEGREE)
        scored: Counts = {"ckks/block of scores": in_ring * outputs, "ckks/column of scores": in_ring * outputs * width}
        yield Turn(phase, 1, {feature: scored})
        yield Turn(phase, 1, sends(feature, blocks, sizes["EncryptedScores"]))
        yield Turn(phase, 1, {label: {"ckks/read block of scores": in_ring * outputs}})
        return
    preset, room = preset_of(spec), evaluation_rows(spec)
    for size, number in {min(room, rows): rows // room or 1, rows % room if rows > room else 0: 1}.items():
        if not size:
            continue
        values = size * outputs
        made = added(ciphertexts.key(preset, values), ciphertexts.encrypted(preset, width), ciphertexts.opened(values))
        computed = added(ciphertexts.loaded_key(preset, values), ciphertexts.network_scores(spec, size))
        yield Turn(phase, number, {feature: made})
        yield Turn(phase, number, {label: computed})
    down = sizes["MaskedScores"]
    yield Turn(phase, 1, sends(feature, 3 * blocks, sum(sizes.values()) - down))
    yield Turn(phase, 1, sends(label, blocks, down))


def _clear_scores(spec: PredictionSpec, rows: int) -> Iterator[Turn]:
    trained, phase = spec.trained, "scores" if spec.session is None else REQUEST
    blocks = math.ceil(rows / rows_of_block(spec))
    for feature in trained.roster.features:
        width = trained.embedding_width(feature)
        yield Turn(phase, 1, {feature: {"clear/step": blocks, "clear/number": rows * width}})
        yield Turn(phase, 1, sends(feature, blocks, 8 * rows * width))
    yield Turn(phase, 1, {spec.roster.label: {"clear/step": blocks, REPORT: blocks}})
