"""Training: one network over a label party's and feature parties' columns of the same rows, encrypted or in clear."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from crypto.ckks_parameters import SECURITY_BITS
from vfl.errors import ImpossibleJob
from vfl.kind import CHECKPOINTS_AGAIN, Kind, Roles
from vfl.notices import Notice
from vfl.planning import model_size, training, warnings
from vfl.planning.plan import Forecast, RevealLine, TrainingPlan
from vfl.planning.work import Clock, TableRows, Turn, least_rows
from vfl.routes import Route, routes_of_training
from vfl.setup import Table
from vfl.spec.encryption import CkksEncryption, PaillierEncryption
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId
from vfl.spec.training import TrainingSpec


class TrainingKind(Kind[TrainingSpec, TrainingPlan]):
    specification = TrainingSpec

    def routes(self, spec: TrainingSpec) -> tuple[Route, ...]:
        return routes_of_training(spec)

    def roles(self, spec: TrainingSpec) -> Roles:
        if isinstance(spec.encryption, PaillierEncryption):
            from vfl.protocols import paillier_training  # noqa: PLC0415 - of an extra, only when a job is run

            return paillier_training.ROLES
        if spec.encrypted:
            from vfl.protocols import ckks_training  # noqa: PLC0415 - torch and tenseal, only when a job is run

            return ckks_training.ROLES
        from vfl.protocols import split_training  # noqa: PLC0415 - torch, only when a job is run

        return split_training.ROLES

    def largest_messages(self, spec: TrainingSpec, rows: int) -> dict[str, int]:
        return training.largest_messages(spec, rows)

    def completed(self, document: dict[str, Any]) -> dict[str, Any]:
        """An encryption that names no scheme is CKKS."""
        encryption = document.get("encryption")
        if not isinstance(encryption, dict):
            return document
        return document | {"encryption": {"scheme": CkksEncryption.scheme} | encryption}

    def applying(self, spec: TrainingSpec, training: JobSpec) -> TrainingSpec:
        if not isinstance(training, TrainingSpec):
            raise ImpossibleJob(
                f"model.start_from: the job {spec.model.start_from} is of the kind {training.job.protocol!r}",
                fix="Name the id of a training.",
            )
        spec.check_start(training)
        return spec

    def resolve(self, spec: TrainingSpec) -> TrainingSpec:
        return training.resolve(spec)

    def plan(self, spec: TrainingSpec, me: PartyId, rows: int) -> TrainingPlan:  # all parties plan alike
        return training.plan(spec, rows)

    def work(self, spec: TrainingSpec, rows: TableRows, clock: Clock) -> Iterable[Turn]:
        from vfl.counting import training as counting  # noqa: PLC0415 - models, only when a job is estimated

        return counting.work(spec, self.plan(spec, spec.roster.label, least_rows(spec, rows)))

    def messages_again(self, spec: TrainingSpec, plan: TrainingPlan, line: RevealLine) -> int:
        if not spec.resumes:
            return 0
        return training.messages_again(spec, plan.steps, line, CHECKPOINTS_AGAIN)

    def memory_bytes(self, spec: TrainingSpec, party: PartyId, rows: int) -> int:
        return training.memory_bytes(spec, party, rows)

    def security_bits(self, spec: TrainingSpec) -> int:
        if isinstance(spec.encryption, PaillierEncryption):
            return spec.paillier.security_bits
        return SECURITY_BITS if spec.encrypted else 0

    def model_bytes(self, spec: TrainingSpec, party: PartyId) -> int:
        return model_size.bytes_of_training(spec, party)

    def warnings(
        self,
        spec: TrainingSpec,
        plan: TrainingPlan | None = None,
        forecast: Forecast | None = None,
        classes_held: int | None = None,
    ) -> Iterable[Notice]:
        return warnings.of_training(spec, plan)

    def advice(self, spec: TrainingSpec, plan: TrainingPlan | None = None) -> Iterable[Notice]:
        return warnings.of_one_pass_instead(spec, plan)

    def unprotected(self, spec: TrainingSpec, plan: Mapping[str, Any]) -> Iterator[str]:
        embeddings = spec.model.layout == "embeddings"
        brought = "an embedding coordinate" if embeddings else "a continuous column"
        if not spec.encrypted:
            yield (
                "Scheme none hides nothing from the label party: it read every "
                f"{'embedding' if embeddings else 'prepared value'} of the feature party."
            )
        elif plan and isinstance(spec.encryption, PaillierEncryption):
            yield (
                f"The label party read {plan['opened_per_step']} gradient sums per step, exact: no noise is on them. "
                f"If it knew every row's error, it could reconstruct {min(plan['rho'], 1):.1%} of the variance of "
                f"{brought} (rho {plan['rho']:.3g}), and of a column of few values more than that."
            )
            yield "The label party read a score of every held-out row."
        elif plan:
            yield (
                f"The label party read {plan['opened_per_step']} noisy gradient sums per step. If it knew every row's "
                f"error, it could reconstruct {min(plan['rho'], 1):.1%} of the variance of {brought} "
                f"(rho {plan['rho']:.3g})."
            )
            yield "The label party read a noisy score of every held-out row."
            if not plan["guards_deviating_label_party"]:
                yield (
                    "Nothing is claimed against a label party that deviates from the protocol: one key opens up to "
                    f"{plan['values_per_key']} values, so that it might find the key and all that was encrypted under "
                    "it."
                )
        if spec.train.stop_early is not None:
            yield (
                "The feature party learned after which epochs the loss on validation rows had fallen. One that changes "
                "what it sends can try out labels of these rows by it, one answer an epoch."
            )
        if spec.protection is not None:
            noise = spec.protection.cut_noise
            how = "nothing hides them" if noise.method == "none" else f"noise of deviation {noise.scale:g} is on them"
            yield (
                "The feature party read label-bearing errors for every row and step: labels can be inferred from them, "
                f"and protection.cut_noise is {noise.method}, so that {how}."
            )

    def score_together(
        self,
        spec: TrainingSpec,
        halves: Mapping[PartyId, bytes],
        tables: Mapping[PartyId, Table],
        bottoms: Mapping[PartyId, Callable[[int, int], Any]],
    ) -> Any:
        from vfl.protocols import halves_together  # noqa: PLC0415 - in a notebook, and never in a server

        return halves_together.score_together(spec, halves, tables, bottoms)

    def onnx_graphs(self, spec: TrainingSpec, party: PartyId, half: bytes) -> dict[str, bytes]:
        from vfl.models import onnx_graph  # noqa: PLC0415 - of an extra, and never in a server

        return onnx_graph.graphs(spec, party, half)

    def keeps(self, spec: TrainingSpec, party: PartyId) -> str:
        if party == spec.roster.label:
            inputs = "columns" if spec.model.bottom is None else "embeddings"
            return f"{party} keeps the top model: all weights that are applied to the {inputs} of every party."
        bottom = "no weights" if spec.model.bottom is None else "its bottom model"
        return f"{party} keeps {bottom}, and how its own columns are prepared."


KIND = TrainingKind()
