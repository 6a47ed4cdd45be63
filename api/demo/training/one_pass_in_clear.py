"""The model of one pass from clear sums: what that of the two parties is compared with."""

from dataclasses import replace

import numpy as np

from api.demo.training.joined_rows import JoinedRows, Metrics
from vfl.models.metrics import METRIC
from vfl.planning.one_pass import folds, scored_as
from vfl.protocols.label_side import ALONE
from vfl.protocols.label_sums import LabelSums
from vfl.protocols.prepared_columns import PreparedColumns
from vfl.setup import Setup, Table
from vfl.spec.one_pass import OnePassSpec


def models_in_clear(spec: OnePassSpec, rows: JoinedRows) -> dict[str, Metrics]:
    """Of the same model, and of the label party's own columns alone."""
    train, test = rows.split(scored_as(spec))
    (feature,), label = spec.roster.features, spec.roster.label
    tables = {label: Table(b"", rows.own, rows.labels), feature: Table(b"", rows.features, words=rows.words)}
    own, theirs = (
        replace(Setup(spec, party, {"rows": tables[party]}, rows.joint_seed, b""), agreed_test_rows=test)
        for party in (label, feature)
    )
    side, columns = LabelSums(own), PreparedColumns(theirs)
    usable, _ = columns.without_rare_values(train, spec.fit.least_rows)
    for fold, part in enumerate(folds(rows.joint_seed, train, spec.fit.folds), 1):
        z = columns.rows(part) * usable
        with_constant = np.column_stack([z, np.ones(len(part))])
        side.add(fold, z.T @ side.columns(fold, part), with_constant.T @ with_constant)
    side.solve()
    metrics = side.outcome(side.scorer.scores(columns.rows(test), side.own(test)), {}).metrics
    name = METRIC[spec.job.task]
    alone = {name: metrics[f"{ALONE}{name}"]} if f"{ALONE}{name}" in metrics else {}
    return {"same_model_in_clear": metrics, "label_party_alone": alone}
