"""Alignment: two or more parties find the rows that they have in common by their ids, and show each other no other."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vfl.kind import Kind, Roles
from vfl.message import Grain
from vfl.planning import alignment as planning
from vfl.planning.plan import Plan
from vfl.planning.work import Clock, TableRows, Turn
from vfl.routes import Route, routes_of_alignment
from vfl.spec.alignment import AlignmentSpec
from vfl.spec.sections import PartyId

ROW_NUMBER_BYTES = 8


class AlignmentKind(Kind[AlignmentSpec, Plan]):
    specification = AlignmentSpec
    step = checkpoint = "hundredth"
    activity = "aligning"
    counted = "ids"

    def routes(self, spec: AlignmentSpec) -> tuple[Route, ...]:
        return routes_of_alignment(spec)

    def roles(self, spec: AlignmentSpec) -> Roles:
        from vfl.protocols import alignment, alignment_of_many  # noqa: PLC0415 - libsodium, only when a job is run

        return alignment.ROLES if spec.entry == "alignment" else alignment_of_many.ROLES

    def completed(self, document: dict[str, Any]) -> dict[str, Any]:
        """There is no task that its author could name."""
        job = document.get("job")
        return document | {"job": {"task": "none"} | job} if isinstance(job, dict) else document

    def largest_messages(self, spec: AlignmentSpec, rows: int) -> Mapping[str, int]:
        return planning.largest_messages(spec)

    def plan(self, spec: AlignmentSpec, me: PartyId, rows: int) -> Plan:
        return planning.plan(spec, me, rows)

    def work(self, spec: AlignmentSpec, rows: TableRows, clock: Clock) -> Iterable[Turn]:
        from vfl.counting import alignment as counting  # noqa: PLC0415 - as in the other kinds

        return counting.work(spec, rows)

    def memory_bytes(self, spec: AlignmentSpec, party: PartyId, rows: int) -> int:
        return planning.memory_bytes(spec, rows)

    def security_bits(self, spec: AlignmentSpec) -> int:
        return planning.SECURITY_BITS

    def model_bytes(self, spec: AlignmentSpec, party: PartyId) -> int:
        return ROW_NUMBER_BYTES * spec.align.maximum_ids

    def unprotected(self, spec: AlignmentSpec, plan: Mapping[str, Any]) -> Iterator[str]:
        if spec.tells_rows:
            yield "Each party learned which of its own ids all others have: that somebody is known there can be secret."
        else:
            yield "Each party learned how many ids all have."
        yield "Each party learned how many ids each other party brought."
        if spec.entry == "alignment_of_many":
            yield (
                f"{spec.coordinator} learned how many ids any group of the parties shares. Nothing is claimed against "
                "a party that deviates from the protocol, or against two that work together."
            )
        yield (
            "Nothing tells real ids from invented ones: a party that brings ids which it has guessed learns of each "
            "whether the other has it, up to align.maximum_ids."
        )

    def revealed(
        self, spec: AlignmentSpec, me: PartyId, lines: list[dict[str, Any]], metrics: Mapping[str, float]
    ) -> list[dict[str, Any]]:
        """Of two parties: each learns of its own ids alone. Of more, what the coordinator learns stays a limit."""
        if len(spec.parties) > 2:
            return lines
        ids = {True: int(metrics["own_ids"]), False: int(metrics["ids_of_peer"])}
        batches = max(1, planning.batches(max(ids.values())))
        return [
            line | {"values": ids[line["receiver"] == me], "messages": batches}
            if line["grain"] == Grain.ROW.value
            else line
            for line in lines
        ]

    def keeps(self, spec: AlignmentSpec, party: PartyId) -> str:
        if spec.tells_rows:
            return f"{party} keeps the numbers of its own rows that are common, in an order that all parties share."
        return f"{party} keeps how many ids are common."


KIND = AlignmentKind()
