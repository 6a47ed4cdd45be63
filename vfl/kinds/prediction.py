"""Prediction: new rows are scored with a trained model whose halves the parties hold, for the label party to read."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from crypto.ckks_parameters import SECURITY_BITS
from vfl.errors import ImpossibleJob
from vfl.kind import Kind, Roles
from vfl.kinds import kind_of
from vfl.notices import Notice
from vfl.planning import model_size, prediction, warnings
from vfl.planning.plan import Forecast, Plan
from vfl.planning.work import Clock, TableRows, Turn, least_rows
from vfl.reports import Outcome
from vfl.routes import Route, routes_of_prediction
from vfl.setup import Setup
from vfl.spec.job import JobSpec
from vfl.spec.prediction import PredictionSpec
from vfl.spec.sections import PartyId
from vfl.spec.training import TrainingSpec


class PredictionKind(Kind[PredictionSpec, Plan]):
    specification = PredictionSpec
    step = checkpoint = "row"
    activity = "scoring"

    def routes(self, spec: PredictionSpec) -> tuple[Route, ...]:
        """None while it is not known how the model was trained."""
        return () if spec.model.specification is None else routes_of_prediction(spec)

    def roles(self, spec: PredictionSpec) -> Roles:
        if spec.trained.encrypted:
            from vfl.protocols import ckks_prediction  # noqa: PLC0415 - tenseal, only when a job is run

            return ckks_prediction.ROLES
        from vfl.protocols import split_prediction  # noqa: PLC0415 - only when a job is run

        return split_prediction.ROLES

    def largest_messages(self, spec: PredictionSpec, rows: int) -> dict[str, int]:
        return prediction.largest_messages(spec, rows)

    def completed(self, document: dict[str, Any]) -> dict[str, Any]:
        """There is no task that its author could name."""
        job = document.get("job")
        return document | {"job": {"task": "none"} | job} if isinstance(job, dict) else document

    def applying(self, spec: PredictionSpec, training: JobSpec) -> PredictionSpec:
        trained = kind_of(training).scored_as(training)
        if not isinstance(trained, TrainingSpec):
            raise ImpossibleJob(
                f"the job {spec.model.training} is of the kind {training.job.protocol!r}: it has trained no model of "
                "two halves",
                fix="Name the id of a training in model.training.",
            )
        return spec.with_training(trained)

    def resolve(self, spec: PredictionSpec) -> PredictionSpec:
        _ = spec.trained
        return spec

    def plan(self, spec: PredictionSpec, me: PartyId, rows: int) -> Plan:  # all parties plan alike
        return prediction.plan(spec, rows)

    def work(self, spec: PredictionSpec, rows: TableRows, clock: Clock) -> Iterable[Turn]:
        from vfl.counting import scoring  # noqa: PLC0415 - models, only when a job is estimated

        return scoring.of_prediction(spec, least_rows(spec, rows))

    def memory_bytes(self, spec: PredictionSpec, party: PartyId, rows: int) -> int:
        return prediction.memory_bytes(spec, party, rows)

    def security_bits(self, spec: PredictionSpec) -> int:
        return SECURITY_BITS if spec.trained.encrypted else 0

    def model_bytes(self, spec: PredictionSpec, party: PartyId) -> int:
        trained = spec.model.specification
        return 0 if trained is None else model_size.bytes_of_training(trained, party)

    def warnings(
        self,
        spec: PredictionSpec,
        plan: Plan | None = None,
        forecast: Forecast | None = None,
        classes_held: int | None = None,
    ) -> Iterable[Notice]:
        return warnings.of_prediction(spec)

    def unprotected(self, spec: PredictionSpec, plan: Mapping[str, Any]) -> Iterator[str]:
        if not spec.trained.encrypted:
            yield (
                "The model was trained in clear, and so it is applied: the label party read all that the feature "
                "party's half makes of each row."
            )
        else:
            yield (
                "The label party read a noisy score of every row. It holds the weights, so that each score tells one "
                "number that is made of the feature party's columns of that row. Scores of several models, or of a "
                "row whose columns have changed, add up."
            )
            yield (
                "Nothing is claimed against a label party that deviates from the protocol: it can put other weights "
                "in the place of the model's, and so read one column of each row instead of a score."
            )
        if spec.session is not None:
            yield (
                "The label party chose which of these rows are scored, and when; each is scored once at most. The "
                "feature party learned of each when it was asked for."
            )
        yield "Each party learned which rows are scored, as far as it knows them by its own ids."

    def revealed(
        self, spec: PredictionSpec, me: PartyId, lines: list[dict[str, Any]], metrics: Mapping[str, float]
    ) -> list[dict[str, Any]]:
        """Of a session, what was asked for."""
        rows = max((line["values"] for line in lines if line["message"] == "RowsToScore"), default=0)
        if not rows:
            return lines
        opened = int(metrics["opened_rows"])
        return [
            line if line["message"] == "RowsDigest" else line | {"values": line["values"] * opened // rows}
            for line in lines
        ]

    def score_own_columns(self, setup: Setup[PredictionSpec]) -> Outcome:
        from vfl.protocols import new_rows  # noqa: PLC0415 - in a process that computes, and never in a server

        return new_rows.own_columns_outcome(setup)

    def keeps(self, spec: PredictionSpec, party: PartyId) -> str:
        if party == spec.roster.label:
            of = "every row" if spec.session is None else "every row that it asks for"
            return f"{party} keeps a score of {of}, rounded to {spec.scores.decimals} decimals."
        return f"{party} keeps nothing of this job; its half of the model stays as it is."


KIND = PredictionKind()
