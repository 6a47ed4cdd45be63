"""What a prediction will do, worked out from its specification before it runs; loads neither torch nor encryption."""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from crypto.ckks_parameters import PRESETS, RING_DEGREE
from vfl.errors import ImpossibleJob
from vfl.message import Grain
from vfl.planning.plan import Plan, RevealLine
from vfl.planning.traffic import WORD, evaluation_rows, largest_of_scoring, scoring_bytes
from vfl.requests import MOST_ROWS
from vfl.routes import routes_of_prediction
from vfl.spec.prediction import PredictionSpec
from vfl.spec.sections import PartyId

CLEAR_BLOCK_ROWS: Final = 1 << 14
"""Of one message in clear."""


def plan(spec: PredictionSpec, rows: int) -> Plan:
    """Raises ImpossibleJob, naming the cause."""
    _check_told(spec)
    trained, lines = spec.trained, []
    blocks = math.ceil(rows / rows_of_block(spec)) if spec.session is None else rows
    for route in routes_of_prediction(spec):
        for feature in spec.roster.features:
            width = trained.embedding_width(feature)
            counted = {
                "RowsDigest": (2, 1),
                "RowsToScore": (rows, blocks),
                "EvaluationRows": (rows * width, blocks),
                "EncryptedScores": (rows * trained.outputs, blocks),
            }
            players = {spec.role_of(feature): feature, spec.role_of(spec.roster.label): spec.roster.label}
            is_told = route.message.reveals.grain is not Grain.NOTHING
            lines.append(RevealLine.of(route, players, *(counted[route.message.kind()] if is_told else (0, 0))))
    return Plan(
        rows=rows,
        training_rows=rows,
        test_rows=0,
        steps=rows,
        tells_of_each_row=True,
        opens_on_request=spec.session is not None,
        payload_bytes=_payload_bytes(spec, rows) if spec.session is None else {},
        reveals=tuple(lines),
    )


def memory_bytes(spec: PredictionSpec, party: PartyId, rows: int) -> int:
    """Its table and what a block holds: numbers, and with hidden neurons a ciphertext for each row of it."""
    trained, block = spec.trained, rows_of_block(spec)
    numbers = WORD * (rows + block) * (trained.data[party].prepared_width + trained.outputs)
    if not trained.encrypted:
        return numbers
    preset = PRESETS[trained.ckks.preset]
    per_block = block * trained.outputs if trained.hidden else trained.embedding_width(trained.roster.features[0])
    return numbers + 2 * WORD * RING_DEGREE * (per_block + len(preset.data_moduli))


def rows_of_block(spec: PredictionSpec) -> int:
    """How many are scored at once, at most."""
    room = evaluation_rows(spec.trained) if spec.trained.encrypted else CLEAR_BLOCK_ROWS
    return room if spec.session is None else min(room, MOST_ROWS)


def clear_blocks(rows: int) -> list[NDArray[np.int64]]:
    """Of rows that are scored in clear."""
    return [np.arange(start, min(start + CLEAR_BLOCK_ROWS, rows)) for start in range(0, rows, CLEAR_BLOCK_ROWS)]


def largest_messages(spec: PredictionSpec, rows: int) -> dict[str, int]:
    """Payload bytes of one message at most, by kind."""
    trained, most = spec.trained, min(rows, rows_of_block(spec))
    if not trained.encrypted:
        width = max(map(trained.embedding_width, trained.roster.features))
        largest = {"EvaluationRows": most * width * WORD}
    elif spec.session is None:
        largest = largest_of_scoring(trained, rows)
    else:
        of_sizes = [largest_of_scoring(trained, size) for size in range(1, most + 1)]
        largest = {kind: max(sizes[kind] for sizes in of_sizes) for kind in of_sizes[0]} if of_sizes else {}
    return largest if spec.session is None else largest | {"RowsToScore": most * WORD}


def _payload_bytes(spec: PredictionSpec, rows: int) -> dict[str, int]:
    trained = spec.trained
    if trained.encrypted:
        return scoring_bytes(trained, rows)
    return {"EvaluationRows": rows * sum(map(trained.embedding_width, trained.roster.features)) * WORD}


def _check_told(spec: PredictionSpec) -> None:
    """As many scores as a feature party brings numbers tell these numbers: the label party knows the weights."""
    trained = spec.trained
    for feature in trained.roster.features if trained.encrypted else ():
        width = trained.embedding_width(feature)
        if trained.outputs >= width:
            raise ImpossibleJob(
                f"the model gives {trained.outputs} scores of a row, and {feature} brings {width} numbers of it: "
                f"whoever knows the weights reads these numbers out of the scores",
                fix="Train a model in which the feature party brings more columns than there are scores.",
            )
