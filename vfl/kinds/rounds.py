"""Rounds: an aggregator and clients whose rows carry labels average one network, round by round."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vfl.kind import Kind, Roles
from vfl.notices import Notice
from vfl.planning import model_size, rounds, warnings
from vfl.planning.plan import Forecast, Plan
from vfl.planning.work import Clock, TableRows, Turn
from vfl.routes import Route, routes_of_rounds
from vfl.spec.rounds import RoundsSpec
from vfl.spec.sections import PartyId


class RoundsKind(Kind[RoundsSpec, Plan]):
    specification = RoundsSpec
    step = checkpoint = "round"
    counted = "messages"
    plans_without_rows = True  # how often a message is sent does not depend on rows
    can_rehearse = True

    def routes(self, spec: RoundsSpec) -> tuple[Route, ...]:
        return routes_of_rounds(spec)

    def roles(self, spec: RoundsSpec) -> Roles:
        from vfl.protocols.rounds import ROLES  # noqa: PLC0415 - torch, only when a job is run

        return ROLES

    def largest_messages(self, spec: RoundsSpec, rows: int) -> dict[str, int]:
        return rounds.largest_messages(spec)

    def plan(self, spec: RoundsSpec, me: PartyId, rows: int) -> Plan:
        return rounds.plan(spec, me, rows)

    def work(self, spec: RoundsSpec, rows: TableRows, clock: Clock) -> Iterable[Turn]:
        from vfl.counting import rounds as counting  # noqa: PLC0415 - torch, only when a job is estimated

        return counting.work(spec, rows, clock)

    def memory_bytes(self, spec: RoundsSpec, party: PartyId, rows: int) -> int:
        return rounds.memory_bytes(spec, rows)

    def model_bytes(self, spec: RoundsSpec, party: PartyId) -> int:  # every party holds the same one
        return model_size.bytes_of_rounds(spec)

    def warnings(
        self,
        spec: RoundsSpec,
        plan: Plan | None = None,
        forecast: Forecast | None = None,
        classes_held: int | None = None,
    ) -> Iterable[Notice]:
        return warnings.of_rounds(spec, forecast, classes_held)

    def rehearse(self, spec: RoundsSpec) -> Forecast:
        from vfl.rehearsal import forecast  # noqa: PLC0415 - torch, only when bytes are asked for

        return forecast(spec)

    def unprotected(self, spec: RoundsSpec, plan: Mapping[str, Any]) -> Iterator[str]:
        yield "Every client read the shared model, and what can be inferred from it about the others' rows."
        if spec.rounds.secure_sum:
            yield (
                "The aggregator read sums over the clients of a round. Where all but one of them work together, what "
                "they subtract is the last one's update."
            )
        else:
            yield (
                "The aggregator read each client's trained parameters in every round, one client at a time: rows can "
                "be inferred from them, and sending fewer bits or a smaller part of the model is no protection."
            )
        if "backbone_decoder" in spec.parts:
            yield "Every client holds the second model whole and keeps it: it can use it after the job and alone."
        if "model_inversion" in spec.parts:
            yield (
                "The aggregator finds rows in each client's model: what it finds can resemble the client's own. The "
                "leak meter says how near, for this run; it is no bound."
            )
        limit = "is off here; where it is on it" if not spec.rounds.reply_norm_limit else "is on: it"
        yield (
            f"Nothing tells honest rows from poisoned ones. reply_norm_limit {limit} bounds how far "
            "one reply can move the model, not where to. One organisation behind several clients counts as several."
        )

    def keeps(self, spec: RoundsSpec, party: PartyId) -> str:
        return f"{party} keeps the whole shared model, as every party of the job does."


KIND = RoundsKind()
