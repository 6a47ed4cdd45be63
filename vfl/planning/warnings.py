"""What a job is warned of before anything is sent: it can run, but may tell more, or give less, than one would expect.

The only list of such warnings: `vfl job check` prints it, and every party stores it with the job it agrees to.
"""

import math
from collections.abc import Iterator

from vfl.notices import Notice
from vfl.planning import one_pass
from vfl.planning.plan import Forecast, TrainingPlan
from vfl.planning.training import INPUT_BOUND
from vfl.spec.encryption import PaillierEncryption
from vfl.spec.joined_rows import JoinedRowsSpec
from vfl.spec.one_pass import OnePassSpec
from vfl.spec.prediction import PredictionSpec
from vfl.spec.preparation import DEFAULT, OneHot
from vfl.spec.rounds import RoundsSpec
from vfl.spec.training import TrainingSpec

NEARLY_ALL = 0.9
"""A part that leaves more of the bytes than this saves next to nothing."""
DECODER_SHARE = 0.05
"""Of federated averaging's bytes: what later rounds of a backbone that stays may send at most (backbone_decoder.md)."""
FEW_CHOSEN = 0.5
"""Share of the clients in a cohort from which all are as good as there."""


def of_training(spec: TrainingSpec, plan: TrainingPlan | None) -> Iterator[Notice]:
    """`plan` is there once the number of rows is known."""
    if plan is not None:
        yield from _of_rare_categories(spec, plan)
    if not spec.encrypted:
        text = "nothing is encrypted: every embedding is read by the label party"
        yield Notice("warning", "nothing_encrypted", text)
    if isinstance(spec.encryption, PaillierEncryption):
        text = (
            "the label party reads exact sums: of a column of few values, such as 0 and 1, a few of them over a small "
            "batch can tell the value of each row"
        )
        yield Notice("warning", "exact_sums", text)
    if spec.protection is not None and spec.protection.cut_noise.method == "none":
        text = "errors go back without noise: the feature party can infer labels from them"
        yield Notice("warning", "errors_without_noise", text)
    if spec.train.stop_early is not None:
        text = (
            "train.stop_early: the feature party learns when the loss on validation rows falls, and one that changes "
            f"what it sends can try out a label of such a row each time, up to {spec.validations} times"
        )
        yield Notice("warning", "early_end_tells", text)
    if plan is not None and spec.encrypted and not plan.guards_deviating_label_party:
        text = "nothing is claimed against a label party that breaks the protocol, as a key opens so many values"
        yield Notice("warning", "deviation_not_guarded", text)
    yield from _of_preparation(spec)


def of_one_pass(spec: OnePassSpec) -> Iterator[Notice]:
    yield from _of_preparation(spec)
    text = (
        "the label party reads exact sums: one that breaks the protocol can read values of single rows with them, a "
        "few with each sum"
    )
    yield Notice("warning", "deviation_not_guarded", text)


def of_one_pass_instead(spec: TrainingSpec, plan: TrainingPlan | None) -> Iterator[Notice]:
    instead = OnePassSpec.instead_of(spec)
    if instead is None or instead.outputs >= one_pass.width_of(instead):
        return
    text = (
        f"this linear model can be solved in one pass, with job.protocol = one_pass: each row is touched once and not "
        f"{spec.train.epochs} times"
    )
    if plan is not None:
        sums, of_steps = instead.fit.folds * one_pass.opened_of_fold(instead), plan.steps * plan.opened_per_step
        text += f", and the label party reads {sums:,} sums in place of {of_steps:,}"
    yield Notice("note", "one_pass_possible", text)


def _of_preparation(spec: JoinedRowsSpec) -> Iterator[Notice]:
    for party, own in spec.data.items():
        unsaid = [column for column, step in zip(own.columns, own.steps, strict=True) if step is DEFAULT]
        if unsaid:
            text = (
                f"nothing says how {len(unsaid)} of {len(own.columns)} columns of {party} are prepared: they are "
                f"standardised on the training rows and clipped at {INPUT_BOUND:g} deviations"
            )
            yield Notice("note", "columns_standardised", text)


def _of_rare_categories(spec: TrainingSpec, plan: TrainingPlan) -> Iterator[Notice]:
    """A 0/1 value of fewer than 2 rho of the rows can come back whole (threat_model.md)."""
    safe = math.ceil(2 * plan.rho * plan.training_rows)
    for feature in spec.roster.features:
        for step in spec.data[feature].prepare:
            if isinstance(step, OneHot) and step.least_rows < safe:
                text = (
                    f"{feature} may bring a category of {step.least_rows} rows, and the label party may find out which "
                    f"rows of {plan.training_rows:,} they are (rho {plan.rho:.3g}); least_rows = {safe} would be safe"
                )
                yield Notice("warning", "rare_categories", text)


def of_prediction(spec: PredictionSpec) -> Iterator[Notice]:
    """How the model was trained is known from the moment when the label party's server has filled it in."""
    if spec.model.specification is not None and not spec.trained.encrypted:
        text = "nothing is encrypted: all that a feature party's half makes of each row is read by the label party"
        yield Notice("warning", "nothing_encrypted", text)


def of_rounds(spec: RoundsSpec, forecast: Forecast | None, classes_held: int | None) -> Iterator[Notice]:
    """`forecast` needs a rehearsal; `classes_held` is of how many classes a client's own rows are, where known."""
    yield from _of_choices(spec)
    yield from _of_backbone(spec)
    yield from _of_shared_data(spec)
    yield from _of_inversion(spec, classes_held)
    if forecast is not None:
        yield from _of_savings(spec, forecast)
        yield from _of_budget(spec, forecast)


def _of_choices(spec: RoundsSpec) -> Iterator[Notice]:
    rounds, clients = spec.rounds, len(spec.roster.clients)
    never = clients * (1 - spec.cohort / clients) ** rounds.rounds
    if never >= 1:
        text = (
            f"about {never:.0f} of {clients} clients are never chosen in {rounds.rounds} rounds of {spec.cohort}; "
            "they get the final model"
        )
        yield Notice("warning", "clients_never_chosen", text)
    if rounds.min_clients == spec.cohort:
        text = f"min_clients is the whole cohort of {spec.cohort}: one late or refused reply repeats the round"
        yield Notice("warning", "no_client_to_spare", text)
    if rounds.rounds * rounds.deadline_seconds > spec.job.deadline_seconds:
        text = (
            f"{rounds.rounds} rounds of up to {rounds.deadline_seconds:g} s may take longer than "
            f"job.deadline_seconds = {spec.job.deadline_seconds}"
        )
        yield Notice("warning", "deadline_short", text)
    if not rounds.reply_norm_limit and not rounds.secure_sum:
        text = "reply_norm_limit is off: a reply scaled up on purpose enters the mean"
        yield Notice("warning", "replies_unlimited", text)
    if spec.model.norm == "batch" and spec.train.batch_rows < 2:
        text = "batches of one row with batch normalisation: every client's training fails"
        yield Notice("warning", "batches_of_one_row", text)


def _of_backbone(spec: RoundsSpec) -> Iterator[Notice]:
    backbone, own_tables = spec.backbone_decoder, spec.tables_of(spec.roster.aggregator)
    if backbone is None:
        return
    if not spec.model.first_model and "first" not in own_tables:
        text = "the first model has fresh weights: a backbone made from it has learned nothing"
        yield Notice("warning", "backbone_untrained", text)
    if backbone.carry_back == "best" and "validation" not in own_tables:
        text = "carry_back = best without validation rows: nothing says whether the old first model was better"
        yield Notice("warning", "carry_back_unjudged", text)


def _of_shared_data(spec: RoundsSpec) -> Iterator[Notice]:
    shared, all_chosen = spec.shared_data, spec.cohort == len(spec.roster.clients)
    if shared is not None and shared.rule == "feddu" and shared.divergence == "cohort" and all_chosen:
        text = (
            'rule = "feddu" never acts where every client is chosen in every round: its weight is then 0; set '
            'divergence = "clients", or choose fewer'
        )
        yield Notice("warning", "shared_data_idle", text)
    if shared is not None and shared.rule == "share":
        text = "the aggregator's shared rows, with their labels, go to every client"
        yield Notice("warning", "shared_rows_leave", text)


def _of_inversion(spec: RoundsSpec, classes_held: int | None) -> Iterator[Notice]:
    """Where averaging already works, inverted rows cost up to a point (model_inversion.md)."""
    terms = spec.model_inversion
    if terms is None or terms.where == "none":
        return
    for text in _of_its_use(spec, classes_held):
        yield Notice("warning", "inversion_of_little_use", text)
    if terms.where == "clients":
        text = "model_inversion: rows that clients find in the shared model can resemble rows of other clients"
    else:
        text = "model_inversion: the aggregator inverts each client's own model, and can find rows like that client's"
    yield Notice("warning", "inversion_reveals", text)


def _of_its_use(spec: RoundsSpec, classes_held: int | None) -> Iterator[str]:
    terms, clients = spec.model_inversion, len(spec.roster.clients)
    if terms is None:
        return
    if classes_held is not None and 2 * classes_held > spec.outputs:
        yield (
            f"model_inversion is unlikely to help: rows here are of {classes_held} of {spec.outputs} classes, and it "
            "pays where clients miss most"
        )
    elif classes_held is None and spec.cohort >= FEW_CHOSEN * clients and spec.rounds.rounds > 1:
        yield (
            f"model_inversion is unlikely to help where {spec.cohort} of {clients} clients take part in each round, "
            "unless each misses most classes: where each misses few, averaging alone does as well"
        )
    if terms.warm_up > spec.rounds.rounds:
        yield (
            f"model_inversion never acts: it starts in round {terms.warm_up} of {spec.rounds.rounds}; a job of one "
            "round needs warm_up = 1"
        )
    if terms.labels == "soft" and terms.where == "clients":
        yield 'model_inversion.labels = "soft" is for the aggregator, which does not invert here'


def _of_savings(spec: RoundsSpec, forecast: Forecast) -> Iterator[Notice]:
    share = (forecast.down + forecast.up) / sum(forecast.without_parts.values())
    if spec.backbone_decoder is not None and spec.compressed_sync is None and share > DECODER_SHARE:
        text = (
            f"after a client's first round {share:.0%} of federated averaging's bytes still travel: cut later for a "
            "smaller decoder"
        )
        yield Notice("warning", "little_saved", text)
    if spec.backbone_decoder is None and spec.compressed_sync is not None and share > NEARLY_ALL:
        text = f"compressed_sync leaves {share:.0%} of the bytes: tensors of fewer than 1,024 values travel as they are"
        yield Notice("warning", "little_saved", text)


def _of_budget(spec: RoundsSpec, forecast: Forecast) -> Iterator[Notice]:
    limit = spec.rounds.stop.gigabytes * 1e9
    per_round = spec.cohort * (forecast.down + forecast.up)
    first = min(spec.cohort * spec.rounds.rounds, len(spec.roster.clients)) * (forecast.once_down + forecast.once_up)
    if limit and first + spec.rounds.rounds * per_round > limit:
        ends = max(1, math.ceil((limit - first) / per_round))
        text = f"stop.gigabytes ends the job after about {ends} of {spec.rounds.rounds} rounds"
        yield Notice("warning", "budget_short", text)
