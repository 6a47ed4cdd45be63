"""One pass: a linear model over two parties' columns of the same rows, solved from encrypted sums over all rows."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from crypto.moments_parameters import SECURITY_BITS, MomentsScale
from vfl.kind import Kind, Roles
from vfl.notices import Notice
from vfl.planning import model_size, one_pass, warnings
from vfl.planning.plan import Forecast, Plan
from vfl.planning.work import Clock, TableRows, Turn, least_rows
from vfl.routes import Route, routes_of_one_pass
from vfl.setup import Table
from vfl.spec.one_pass import OnePassSpec
from vfl.spec.sections import PartyId
from vfl.spec.training import TrainingSpec


class OnePassKind(Kind[OnePassSpec, Plan]):
    specification = OnePassSpec

    def routes(self, spec: OnePassSpec) -> tuple[Route, ...]:
        return routes_of_one_pass(spec)

    def roles(self, spec: OnePassSpec) -> Roles:
        from vfl.protocols.one_pass import ROLES  # noqa: PLC0415 - tenseal, only when a job is run

        return ROLES

    def largest_messages(self, spec: OnePassSpec, rows: int) -> dict[str, int]:
        return one_pass.largest_messages(spec, rows)

    def scored_as(self, spec: OnePassSpec) -> TrainingSpec:
        return one_pass.scored_as(spec)

    def plan(self, spec: OnePassSpec, me: PartyId, rows: int) -> Plan:  # both parties plan alike
        return one_pass.plan(spec, rows)

    def work(self, spec: OnePassSpec, rows: TableRows, clock: Clock) -> Iterable[Turn]:
        from vfl.counting import one_pass as counting  # noqa: PLC0415 - as in the other kinds

        return counting.work(spec, self.plan(spec, spec.roster.label, least_rows(spec, rows)))

    def memory_bytes(self, spec: OnePassSpec, party: PartyId, rows: int) -> int:
        return one_pass.memory_bytes(spec, party, rows)

    def security_bits(self, spec: OnePassSpec) -> int:
        return SECURITY_BITS

    def model_bytes(self, spec: OnePassSpec, party: PartyId) -> int:
        return model_size.bytes_of_training(spec.as_training, party)

    def warnings(
        self,
        spec: OnePassSpec,
        plan: Plan | None = None,
        forecast: Forecast | None = None,
        classes_held: int | None = None,
    ) -> Iterable[Notice]:
        return warnings.of_one_pass(spec)

    def unprotected(self, spec: OnePassSpec, plan: Mapping[str, Any]) -> Iterator[str]:
        if plan:
            share = f"{min(plan['rho'], 1):.1%}"
            yield (
                f"The label party read {plan['opened_per_step']} nearly exact sums over each of {spec.fit.folds} folds "
                f"of the training rows. If it knew all other columns, it could reconstruct {share} of the variance of "
                f"a continuous column (rho {plan['rho']:.3g}). Bins, categories and values of fewer than "
                f"{spec.fit.least_rows} rows were left out of the sums."
            )
        yield "The label party read a noisy score of every held-out row."
        bits = f" {MomentsScale(plan['training_rows']).bits_of_a_sum} bits" if plan else " a few bits"
        yield (
            "Nothing is claimed against a label party that deviates from the protocol: it can encrypt other columns "
            f"than its own, such as one that is 1 in a single row, and so read{bits} of its choice about single rows "
            "with each of these sums. Their number is all that bounds it."
        )

    def score_together(
        self,
        spec: OnePassSpec,
        halves: Mapping[PartyId, bytes],
        tables: Mapping[PartyId, Table],
        bottoms: Mapping[PartyId, Callable[[int, int], Any]],
    ) -> Any:
        from vfl.protocols import halves_together  # noqa: PLC0415 - in a notebook, and never in a server

        return halves_together.score_together(self.scored_as(spec), halves, tables, bottoms)

    def onnx_graphs(self, spec: OnePassSpec, party: PartyId, half: bytes) -> dict[str, bytes]:
        from vfl.models import onnx_graph  # noqa: PLC0415 - of an extra, and never in a server

        return onnx_graph.graphs(self.scored_as(spec), party, half)

    def keeps(self, spec: OnePassSpec, party: PartyId) -> str:
        if party == spec.roster.label:
            return f"{party} keeps all weights, which are applied to the columns of every party."
        return f"{party} keeps no weights, and how its own columns are prepared."


KIND = OnePassKind()
