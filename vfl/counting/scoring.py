"""The work of scoring rows with the two halves of a model, counted: of held-out rows as of new ones."""

import math
from collections.abc import Iterator

from crypto.scoring_parameters import DEGREE, layout_for
from vfl.planning.prediction import rows_of_block
from vfl.planning.traffic import evaluation_rows, scoring_bytes
from vfl.planning.work import REPORT, START, Counts, Turn, added, sends
from vfl.spec.prediction import PredictionSpec
from vfl.spec.training import TrainingSpec

REQUEST = "one request"
"""The phase of a session in which one row is asked for."""


def starts(spec: TrainingSpec, libraries: Counts) -> Turn:
    """The processes that compute, with the libraries that they load."""
    network = {"torch/start": 1.0} if spec.model.bottom is not None else {}
    label, process = spec.roster.label, added({START: 1.0}, libraries)
    return Turn("start", 1, {party: process if party == label else added(process, network) for party in spec.parties})


def of_prediction(spec: PredictionSpec, rows: int) -> Iterator[Turn]:
    trained, session = spec.trained, spec.session is not None
    yield starts(trained, {"ckks/start" if trained.encrypted else "clear/start": 1})
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
    """The weights, which are sent once."""
    label, (feature,) = spec.roster.label, spec.roster.features
    width = spec.embedding_width(feature)
    number = spec.outputs * (layout_for(width).squares if spec.hidden else width)
    key, each, loaded = (
        ("network weights key", "encrypted factor", "loaded factor")
        if spec.hidden
        else ("weights key", "encrypted weight", "loaded weight")
    )
    yield Turn(phase, 1, {label: {f"ckks/{key}": 1, f"ckks/{each}": number}})
    yield Turn(phase, 1, sends(label, 1, scoring_bytes(spec, 1)["EncryptedWeights"]))
    yield Turn(phase, 1, {feature: {f"ckks/{loaded}": number}})


def _blocks(spec: TrainingSpec, rows: int, phase: str) -> Iterator[Turn]:
    label, (feature,) = spec.roster.label, spec.roster.features
    width, outputs, sizes = spec.embedding_width(feature), spec.outputs, scoring_bytes(spec, rows)
    blocks = math.ceil(rows / evaluation_rows(spec))
    if spec.hidden:
        layout = layout_for(width)
        factors = outputs * layout.groups(rows) * layout.slopes
        pieces, columns = len(layout.pieces(rows)), layout.slopes + layout.squares
        yield Turn(phase, 1, {label: {"ckks/encrypted factor": factors}})
        yield Turn(phase, 1, sends(label, blocks, sizes["EncryptedSlopes"]))
        scored: Counts = {
            "ckks/loaded factor": factors,
            "ckks/piece of scores": pieces * outputs,
            "ckks/piece product": pieces * outputs * columns,
            "ckks/piece column": pieces * columns,
        }
        read: Counts = {"ckks/read piece of scores": pieces * outputs}
    else:
        in_ring = math.ceil(rows / DEGREE)
        scored = {"ckks/block of scores": in_ring * outputs, "ckks/column of scores": in_ring * outputs * width}
        read = {"ckks/read block of scores": in_ring * outputs}
    yield Turn(phase, 1, {feature: scored})
    yield Turn(phase, 1, sends(feature, blocks, sizes["EncryptedScores"]))
    yield Turn(phase, 1, {label: read})


def _clear_scores(spec: PredictionSpec, rows: int) -> Iterator[Turn]:
    trained, phase = spec.trained, "scores" if spec.session is None else REQUEST
    blocks = math.ceil(rows / rows_of_block(spec))
    for feature in trained.roster.features:
        width = trained.embedding_width(feature)
        yield Turn(phase, 1, {feature: {"clear/step": blocks, "clear/number": rows * width}})
        yield Turn(phase, 1, sends(feature, blocks, 8 * rows * width))
    yield Turn(phase, 1, {spec.roster.label: {"clear/step": blocks, REPORT: blocks}})
