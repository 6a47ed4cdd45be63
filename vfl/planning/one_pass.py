"""What a linear model from sums over all rows will do before it runs; loads neither torch nor an encryption library."""

import math

import numpy as np
from numpy.typing import NDArray

from crypto.moments_parameters import MOST_BLOCK_ROWS, MOST_ROWS, answer_bytes, block_bytes, key_bytes
from vfl.errors import ImpossibleJob
from vfl.message import Grain
from vfl.planning.plan import Plan, RevealLine
from vfl.planning.traffic import evaluation_rows, largest_of_scoring, scoring_bytes
from vfl.planning.training import MINIMUM_BATCH, NUMBER_BYTES, ROWS_PER_OPENED_VALUE, resolve
from vfl.routes import routes_of_one_pass
from vfl.schedule import permutation
from vfl.spec.one_pass import OnePassSpec
from vfl.spec.sections import PartyId
from vfl.spec.training import TrainingSpec

MESSAGE_BLOCKS = 8
"""In one message at most."""
WORKING_BYTES = 64 << 20
"""What a block and a message hold beside the table."""

Rows = NDArray[np.int64]


def scored_as(spec: OnePassSpec) -> TrainingSpec:
    """The resolved training whose model is scored as that of this job."""
    return resolve(spec.as_training)


def folds(seed: bytes, rows: Rows, count: int) -> list[Rows]:
    """So many parts of the training rows, each ascending; the same at both parties."""
    return [np.sort(part) for part in np.array_split(rows[permutation(seed, "folds", len(rows))], count)]


def messages_of_fold(rows: int) -> list[list[int]]:
    """How many rows each block has, by messages."""
    blocks = math.ceil(rows / MOST_BLOCK_ROWS)
    sizes = [len(part) for part in np.array_split(np.arange(rows), blocks)]
    return [sizes[start : start + MESSAGE_BLOCKS] for start in range(0, blocks, MESSAGE_BLOCKS)]


def plan(spec: OnePassSpec, rows: int) -> Plan:
    """Raises ImpossibleJob, naming the cause."""
    if spec.job.task == "multiclass" and not spec.job.classes:
        raise ImpossibleJob("job.classes is not set", fix="The label party fills it in when it proposes.")
    test_rows, fit = spec.split.held_out(rows), spec.fit
    training_rows = rows - test_rows
    if training_rows < fit.folds or test_rows < 1:
        raise ImpossibleJob(f"{rows} rows cannot be split into {fit.folds} folds of training rows and held-out rows")
    if training_rows > MOST_ROWS:
        raise ImpossibleJob(
            f"sums over {training_rows:,} rows do not fit the agreed parameters", fix=f"Bring {MOST_ROWS:,} at most."
        )
    own, width = spec.encrypted_columns, width_of(spec)
    if spec.outputs >= width:
        raise ImpossibleJob(
            f"the model gives {spec.outputs} scores of a row, and the feature party brings {width} numbers of it: "
            "whoever knows the weights reads these numbers out of the scores",
            fix="Bring more columns at the feature party than there are scores.",
        )
    sizes = fold_sizes(spec, training_rows)
    return Plan(
        rows=rows,
        training_rows=training_rows,
        test_rows=test_rows,
        steps=sum(len(messages_of_fold(size)) for size in sizes),
        smallest_batch=min(sizes),
        opened_per_step=opened_of_fold(spec),
        minimum_batch=max(MINIMUM_BATCH, ROWS_PER_OPENED_VALUE * (own + width + 1)),
        rho=fit.folds * (own + 1) / training_rows,
        payload_bytes=_payload_bytes(spec, rows, sizes, test_rows),
        reveals=_reveals(spec, rows, test_rows),
    )


def fold_sizes(spec: OnePassSpec, training_rows: int) -> list[int]:
    return [len(part) for part in np.array_split(np.arange(training_rows), spec.fit.folds)]


def width_of(spec: OnePassSpec) -> int:
    """Numbers that a row of the feature party becomes."""
    (feature,) = spec.roster.features
    return spec.data[feature].prepared_width


def own_products(spec: OnePassSpec) -> int:
    """Of two columns of the feature party, the constant among them, each pair once."""
    width = width_of(spec) + 1
    return width * (width + 1) // 2


def opened_of_fold(spec: OnePassSpec) -> int:
    """Sums that the label party reads of one fold, those of its check column among them; how many rows it has is no
    secret."""
    return width_of(spec) * (spec.encrypted_columns + 1) + own_products(spec) - 1


def largest_messages(spec: OnePassSpec, rows: int) -> dict[str, int]:
    """Payload bytes of one message at most, by kind."""
    sums = sum(answer_bytes(spec.encrypted_columns, width_of(spec))) + NUMBER_BYTES * own_products(spec)
    return largest_of_scoring(scored_as(spec), spec.split.held_out(rows)) | {
        "HeldOut": spec.split.told_bits * math.ceil(rows / 8),
        "SumsKey": key_bytes(spec.encrypted_columns),
        "EncryptedBlocks": MESSAGE_BLOCKS * block_bytes(MOST_BLOCK_ROWS, spec.encrypted_columns),
        "SumsOverRows": sums,
    }


def memory_bytes(spec: OnePassSpec, party: PartyId, rows: int) -> int:
    """Its table once, and what some blocks of it become."""
    return NUMBER_BYTES * rows * (len(spec.data[party].columns) + 1) + WORKING_BYTES


def _payload_bytes(spec: OnePassSpec, rows: int, sizes: list[int], test_rows: int) -> dict[str, int]:
    blocks = [
        block_bytes(size, spec.encrypted_columns) for each in sizes for part in messages_of_fold(each) for size in part
    ]
    largest = largest_messages(spec, rows)
    sent = scoring_bytes(scored_as(spec), test_rows) | {
        "SumsKey": largest["SumsKey"],
        "EncryptedBlocks": sum(blocks),
        "SumsOverRows": spec.fit.folds * largest["SumsOverRows"],
    }
    return sent | ({"HeldOut": largest["HeldOut"]} if spec.split.is_told else {})


def _reveals(spec: OnePassSpec, rows: int, test_rows: int) -> tuple[RevealLine, ...]:
    players = {spec.role_of(party): party for party in spec.parties}
    scored = math.ceil(test_rows / evaluation_rows(scored_as(spec)))
    counted = {
        "RowsDigest": (2, 1),
        "HeldOut": (rows * spec.split.told_bits, 1),
        "SumsOverRows": (spec.fit.folds * opened_of_fold(spec), spec.fit.folds),
        "EncryptedScores": (test_rows * spec.outputs, scored),
    }
    return tuple(
        RevealLine.of(
            route,
            players,
            *((0, 0) if route.message.reveals.grain is Grain.NOTHING else counted[route.message.kind()]),
        )
        for route in routes_of_one_pass(spec)
    )
