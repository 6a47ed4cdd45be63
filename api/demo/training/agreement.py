"""The jobs the two parties of the demonstration run, and the limits of their policy that both relax for them."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from api.demo.training.tables import DATASET, FEATURE_PARTY, LABEL_PARTY, DividedTable, Training
from api.written_specifications import alignment_specification, prediction_specification, toml, written
from crypto.ckks_parameters import ROOMY_VALUES_PER_KEY, preset_for
from crypto.paillier_parameters import SMALLEST_KEY_BITS
from vfl.errors import ImpossibleJob
from vfl.kinds import kind_of, read_spec_as
from vfl.planning import one_pass
from vfl.planning.plan import Plan, TrainingPlan
from vfl.planning.training import loss_of, opened_per_step, plan, resolve
from vfl.schedule import held_out_rows
from vfl.spec.encryption import PaillierEncryption
from vfl.spec.joined_rows import JoinedRowsSpec
from vfl.spec.one_pass import OnePassSpec
from vfl.spec.training import Bottom, TrainingSpec

MINIMUM_ROWS = 1000
MAXIMUM_RHO = 0.05
"""The limits of party_settings.md, which every party.toml starts from."""
MAXIMUM_IDS = 1_000_000
"""Of an alignment, unless it says otherwise."""
PURPOSE = "demonstration on one machine"

LARGEST_BATCH = 4096
DEADLINE_SECONDS = 3600
TEST_SHARE = 0.2


@dataclass(frozen=True)
class RelaxedLimit:
    """A limit of a party's policy that it relaxes for this job."""

    name: str
    """The key under [acceptance] in party.toml."""
    usual: float
    relaxed: float

    def __str__(self) -> str:
        return f"{self.name} {self.usual:g} -> {self.relaxed:g}"


@dataclass(frozen=True)
class Agreement:
    """The specification as text and as parsed, what it will do, and what it asks of both policies."""

    text: str
    spec: JoinedRowsSpec
    plan: Plan
    relaxed_limits: tuple[RelaxedLimit, ...]

    def aligned(self, alignment: str) -> Self:
        """The same on the rows of an alignment, named by the digest of its result."""
        text = f"{self.text}[rows]\nalignment = {toml(alignment)}\n"
        spec = read_spec_as(type(self.spec), text)
        return replace(self, text=text, spec=kind_of(spec).resolve(spec))

    @property
    def acceptance(self) -> dict[str, Any]:
        """The [acceptance] table of both parties: this training, and what comes before and after it."""
        return {
            "schemes": [self.spec.disclosure, "common_ids", "scores"],
            "fixed_seed": True,
            **{limit.name: limit.relaxed for limit in self.relaxed_limits},
        }


@dataclass(frozen=True)
class TrainingAgreement(Agreement):
    """Of a training in steps."""

    spec: TrainingSpec
    plan: TrainingPlan


@dataclass(frozen=True)
class Demonstration:
    """What was agreed, and where it is kept."""

    table: DividedTable
    agreement: Agreement
    seed: int
    folder: Path


def agree(
    table: DividedTable,
    *,
    scheme: str,
    epochs: int | None,
    seed: int,
    layout: str = "features",
    top: str = "linear",
) -> TrainingAgreement:
    """The training of a table. Raises ImpossibleJob when no run could satisfy it, or encryption would protect nothing.

    Its alignment is not known yet, see `aligned`.
    """
    training = training_for(table, layout, top)
    if epochs:
        training = replace(training, epochs=epochs)
    text = training_specification(table, training, scheme, seed)
    spec = resolve(read_spec_as(TrainingSpec, text))
    expected = plan(spec, table.rows)
    if expected.rho >= 1:
        raise ImpossibleJob(
            f"{expected.training_rows} training rows are too few: {expected.steps} steps of a {top} top model open as "
            f"many sums as it takes to work the feature party's values out (rho {expected.rho:.3g})",
            safe="Nothing was written.",
            fix="Bring more rows, take fewer --epochs"
            + (", or train --top linear." if top == "mlp" else ", or train in clear with --scheme none."),
        )
    return TrainingAgreement(text, spec, expected, _relaxed_limits(table, expected))


def agree_on_one_pass(table: DividedTable, seed: int) -> Agreement:
    """A linear model from sums over all rows, with as many folds as leave each of them the rows that its sums ask for,
    and five at most."""
    for folds in (5, 4, 3, 2):
        document = _job(table, "one_pass", seed) | {"fit": {"folds": folds}}
        spec = read_spec_as(OnePassSpec, written(document))
        expected = one_pass.plan(spec, table.rows)
        if expected.smallest_batch >= expected.minimum_batch:
            break
    return Agreement(written(document), spec, expected, _relaxed_limits(table, expected))


def training_for(table: DividedTable, layout: str = "features", top: str = "linear") -> Training:
    """As the table says; one that does not is trained with the smallest batch within every limit, as its rows allow."""
    if says := table.training_of(layout, top):
        return says
    training = Training(epochs=10, batch_rows=1, rate=0.1, momentum=0.5)
    if layout == "embeddings" or top == "mlp":
        bottom = Bottom(hidden=(16,), out=6) if layout == "embeddings" else None
        training = Training(20, 1, 0.03, optimiser="adam", hidden=(8,) if top == "mlp" else (), bottom=bottom)
    spec = read_spec_as(TrainingSpec, training_specification(table, training, "none", 0))
    # ckks_training.md: at least 64 rows, four per opened value, and rho = epochs x sums / batch <= 0.05.
    sums = spec.hidden or spec.outputs
    smallest_batch = max(64, 4 * opened_per_step(spec), math.ceil(training.epochs * sums / MAXIMUM_RHO))
    training_rows = table.rows - held_out_rows(table.rows, TEST_SHARE)
    batches = max(1, training_rows // smallest_batch, math.ceil(training_rows / LARGEST_BATCH))
    return replace(training, batch_rows=max(1, math.ceil(training_rows / batches)))


def alignment_of(table: DividedTable, dataset: str) -> str:
    """The specification by which both parties find their common rows of a data set; ids are compared as written."""
    ids = [len(each) for each in table.ids(dataset).values()]
    rules = {
        "types": ["text"],
        "unicode": "none",
        "white_space": "keep",
        "minimum_ids": min(MINIMUM_ROWS, *ids),
        "maximum_ids": max(MAXIMUM_IDS, *ids),
    }
    return alignment_specification(dict.fromkeys(table.files, (dataset, (table.id,))), rules, PURPOSE)


def prediction_of(training: str, dataset: str, alignment: str) -> str:
    """The specification by which the model of a training scores the common rows of a data set."""
    roster = {"label": LABEL_PARTY, "features": [FEATURE_PARTY]}
    brought = dict.fromkeys((LABEL_PARTY, FEATURE_PARTY), dataset)
    return prediction_specification(training, roster, brought, alignment=alignment, purpose=PURPOSE)


def _relaxed_limits(table: DividedTable, expected: Plan) -> tuple[RelaxedLimit, ...]:
    limits = []
    files = [len(ids) for dataset in table.files[LABEL_PARTY] for ids in table.ids(dataset).values()]
    if (fewest := min(expected.rows, *files)) < MINIMUM_ROWS:
        limits.append(RelaxedLimit("minimum_rows", MINIMUM_ROWS, fewest))
    if expected.smallest_batch < expected.minimum_batch:
        limits.append(RelaxedLimit("minimum_batch_rows", expected.minimum_batch, expected.smallest_batch))
    if expected.rho > MAXIMUM_RHO:
        limits.append(RelaxedLimit("maximum_rho", MAXIMUM_RHO, math.ceil(1000 * expected.rho) / 1000))
    return tuple(limits)


def training_specification(table: DividedTable, training: Training, scheme: str, seed: int) -> str:
    optimiser = {"name": training.optimiser, "rate": training.rate}
    encryption: dict[str, Any] = {"scheme": scheme}
    if scheme == PaillierEncryption.scheme:
        encryption["key_bits"] = SMALLEST_KEY_BITS  # quicker than the default, and the tables are everybody's
    document = {
        **_job(table, "training", seed),
        **_model(training),
        "train": {
            "epochs": training.epochs,
            "batch_rows": training.batch_rows,
            **({"weight_limit": training.weight_limit} if training.weight_limit else {}),
            "optimiser": optimiser | ({"momentum": training.momentum} if training.optimiser == "sgd" else {}),
        },
        "encryption": encryption,
    }
    spec = read_spec_as(TrainingSpec, written(document))
    if scheme == "ckks" and opened_per_step(spec) > preset_for(training.top, loss_of(spec)).values_per_key:
        # One step opens more than the cap that also holds against a label party that deviates.
        encryption["values_per_key"] = ROOMY_VALUES_PER_KEY
    return written(document)


def _job(table: DividedTable, protocol: str, seed: int) -> dict[str, Any]:
    """What the specification says however the model is trained."""
    return {
        "job": {
            "name": f"demo-{table.name}",
            "protocol": protocol,
            "task": table.task,
            **({"classes": table.classes} if table.classes else {}),
            "purpose": PURPOSE,
            "seed": seed,
            "deadline_seconds": DEADLINE_SECONDS,
        },
        "roster": {"label": LABEL_PARTY, "features": [FEATURE_PARTY]},
        "data": {
            LABEL_PARTY: {
                "dataset": DATASET,
                "columns": table.own_columns,
                "label": table.label,
                **({"positive": table.positive} if table.positive else {}),
            },
            FEATURE_PARTY: {"dataset": DATASET, "columns": table.feature_columns},
        },
        "split": {"test": TEST_SHARE, **({"stratify": True} if table.stratified else {})},
    }


def _model(training: Training) -> dict[str, Any]:
    """[model], and in layout embeddings [protection], which names what is done to the errors that go back."""
    top = {"kind": training.top, **({"hidden": training.hidden} if training.hidden else {})}
    model: dict[str, Any] = {"layout": training.layout, "top": top}
    if training.bottom is None:
        return {"model": model}
    bottom = training.bottom
    model["bottom"] = {"hidden": bottom.hidden, "out": bottom.out, "activation": bottom.activation}
    return {"model": model, "protection": {"cut_noise": {"method": "none"}}}
