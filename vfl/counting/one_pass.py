"""The work of a linear model from sums over all rows, counted in blocks of rows and columns."""

from collections.abc import Iterator

from vfl.counting.scoring import encrypted_scores, starts
from vfl.planning.one_pass import fold_sizes, messages_of_fold, scored_as, width_of
from vfl.planning.plan import Plan
from vfl.planning.work import REPORT, Turn, added, sends
from vfl.spec.one_pass import OnePassSpec


def work(spec: OnePassSpec, plan: Plan) -> Iterator[Turn]:
    """The steps of `one_pass`."""
    label, (feature,) = spec.roster.label, spec.roster.features
    training, sent, width = scored_as(spec), plan.payload_bytes, width_of(spec)
    columns, folds = spec.encrypted_columns + 1, spec.fit.folds
    messages = [part for size in fold_sizes(spec, plan.training_rows) for part in messages_of_fold(size)]
    blocks = sum(map(len, messages)) / len(messages)

    yield starts(training, {"moments/start": 1.0})
    # Once for rare values, once for the sums.
    prepared = {party: {"clear/number": 2 * plan.rows * own.prepared_width} for party, own in spec.data.items()}
    yield Turn("start", 1, {party: added(counts, {"clear/step": 1}) for party, counts in prepared.items()})
    yield Turn("start", 1, sends(label, 1, sent["SumsKey"]))
    yield Turn(
        "steps",
        len(messages),
        {
            label: {"moments/encrypted column": blocks * columns, REPORT: 1},
            feature: {"moments/multiplied column": blocks * width, REPORT: 1},
        },
    )
    yield Turn("steps", 1, sends(label, len(messages), sent["EncryptedBlocks"]))
    yield Turn("steps", folds, {feature: {"moments/answered column": width}})
    yield Turn("steps", 1, sends(feature, folds, sent["SumsOverRows"]))
    yield Turn("steps", folds, {label: {"moments/opened column": width, "clear/step": 1}})
    yield from encrypted_scores(training, plan.test_rows)
