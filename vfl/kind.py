"""The shape of a job kind: all that a party, its operator's pages and the command line ask of it, and nothing else.

A kind is one class with one object of it, `KIND` of a module that `vfl.kinds.KINDS` names. What it does not override
does nothing. A kind's module is loaded by the server, so it loads neither torch nor an encryption library: `roles` and
`rehearse` import on demand.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

from vfl.errors import ImpossibleJob, ModelUnfit
from vfl.flow import Flow
from vfl.notices import Notice
from vfl.planning.plan import Forecast, Plan, RevealLine
from vfl.planning.work import Clock, TableRows, Turn
from vfl.reports import Outcome
from vfl.routes import Route
from vfl.setup import Setup, Table
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId, Role

S = TypeVar("S", bound=JobSpec)
P = TypeVar("P", bound=Plan)

Roles: TypeAlias = Mapping[Any, Callable[[Setup[Any]], Flow[Outcome]]]
"""The flow of each role of a protocol."""

CHECKPOINTS_AGAIN = 5
"""Epochs, rounds or intervals between checkpoints that a job may take again."""
FRAMING, MARGIN = 64 << 10, 1.25
"""What a message may be larger than its contents: names and lengths, and what a forecast leaves out."""


class Kind(ABC, Generic[S, P]):
    """One kind of job. Wherever a specification is given, it is one of this kind, and resolved but for `resolve`."""

    specification: type[S]
    step: ClassVar[str] = "step"
    """What a person calls the unit in which the job goes on."""
    checkpoint: ClassVar[str] = "epoch"
    """What a person calls the time between two states that a role reports."""
    activity: ClassVar[str] = "training"
    """What a person calls what goes on."""
    counted: ClassVar[str] = "values"
    """What `RevealLine.values` counts."""
    plans_without_rows: ClassVar[bool] = False
    """Whether a plan tells something before the number of rows is known."""
    can_rehearse: ClassVar[bool] = False
    """Whether `rehearse` finds out how many bytes a job sends."""

    # What travels, and who plays

    @abstractmethod
    def routes(self, spec: S) -> tuple[Route, ...]:
        """Who may send which message to whom in this job; a party refuses everything else."""

    @abstractmethod
    def roles(self, spec: S) -> Roles:
        """The flows that run this job. Its modules are imported here, when a worker or a notebook asks for them."""

    @abstractmethod
    def largest_messages(self, spec: S, rows: int) -> Mapping[str, int]:
        """Payload bytes of one message at most, by kind; a kind of a few words need not be named."""

    def message_limits(self, spec: S, rows: int) -> dict[str, int]:
        """The same for every kind of message of this job, with room for names and lengths around the payload."""
        largest = self.largest_messages(spec, rows)
        kinds = {route.message.kind() for route in self.routes(spec)}
        return {kind: FRAMING + int(MARGIN * largest.get(kind, 0)) for kind in kinds}

    # What the job will do, before it runs

    def completed(self, document: dict[str, Any]) -> dict[str, Any]:
        """A TOML document with what its author may leave out and its type cannot fill in."""
        return document

    def resolve(self, spec: S) -> S:
        """The specification with what it leaves open filled in, as it is proposed. Raises ImpossibleJob."""
        return spec

    def applying(self, spec: S, training: JobSpec) -> S:
        """The specification with that of the job which trained the model that it applies (`JobSpec.applied_model`).

        Raises ImpossibleJob where that model is of another kind, or was trained otherwise than the specification says.
        """
        raise ImpossibleJob(f"a job of {spec.job.protocol} applies no model, not even that of {training.job.name!r}")

    def scored_as(self, spec: S) -> JobSpec:
        """The job as whose model that of this one is scored: itself, or a training that leaves such halves."""
        return spec

    @abstractmethod
    def plan(self, spec: S, me: PartyId, rows: int) -> P:
        """What the job does where `me` brings so many rows. Raises ImpossibleJob, naming the cause."""

    @abstractmethod
    def work(self, spec: S, rows: TableRows, clock: Clock) -> Iterable[Turn]:
        """What each party computes and sends, counted: what an estimate of time and bytes is made of.

        Called in a process that computes, so that libraries may be loaded here. `clock` times what is not counted but
        rehearsed. Raises ImpossibleJob.
        """

    @abstractmethod
    def memory_bytes(self, spec: S, party: PartyId, rows: int) -> int:
        """What the process that computes for this party holds at most beside its program, roughly."""

    def security_bits(self, spec: S) -> int:
        """What it takes to break the encryption that the job computes under; 0 where values are read in clear."""
        return 0

    @abstractmethod
    def model_bytes(self, spec: S, party: PartyId) -> int:
        """Of this party's part of the model, as it is stored; counted without building it, whatever a peer asks for."""

    def messages_again(self, spec: S, plan: P, line: RevealLine) -> int:
        """How many more messages of this line may leave, where steps are taken again after a party was away."""
        if spec.required_parties == frozenset(spec.parties):
            return 0
        return math.ceil(line.messages * CHECKPOINTS_AGAIN / max(1, spec.checkpoints))

    def warnings(
        self, spec: S, plan: P | None = None, forecast: Forecast | None = None, classes_held: int | None = None
    ) -> Iterable[Notice]:
        """What a job that can run should be warned of, by what is known of it.

        `plan` needs rows and `forecast` a rehearsal; `classes_held` is of how many classes a party's own rows are.
        """
        return ()

    def advice(self, spec: S, plan: P | None = None) -> Iterable[Notice]:
        """What whoever plans such a job should consider before it is proposed; no notice of the job itself."""
        return ()

    def rehearse(self, spec: S) -> Forecast | None:
        """How many bytes the job sends, from a run of its roles on made-up rows. Raises ImpossibleJob."""
        return None

    @abstractmethod
    def unprotected(self, spec: S, plan: Mapping[str, Any]) -> Iterable[str]:
        """What the job does not hide or guard, in whole sentences; `plan` is empty where no party has made one yet."""

    def revealed(
        self, spec: S, me: PartyId, lines: list[dict[str, Any]], metrics: Mapping[str, float]
    ) -> list[dict[str, Any]]:
        """What each side could see of a job that is done, where it is less than `lines`, which the plan foresaw."""
        return lines

    def keeps(self, spec: S, party: PartyId) -> str:
        """What this party has of the model afterwards, in a whole sentence."""
        return f"{party} keeps its own part of the model."

    def score_together(
        self,
        spec: S,
        halves: Mapping[PartyId, bytes],
        tables: Mapping[PartyId, Table],
        bottoms: Mapping[PartyId, Callable[[int, int], Any]],
    ) -> Any:
        """What the halves of its model make of the same rows of all parties, in one process: rows x outputs.

        `bottoms` make the private bottom models of parties that have one.

        Raises ModelUnfit where its model has no halves, or where these are not its halves.
        """
        held = ", ".join(halves.keys() & tables.keys())
        raise ModelUnfit(f"a job of {spec.job.protocol} leaves no halves of a model: those of {held} are none")

    def onnx_graphs(self, spec: S, party: PartyId, half: bytes) -> dict[str, bytes]:
        """The half of a party as ONNX graphs, by the names of their files. Raises ModelUnfit."""
        raise ModelUnfit(f"the part that {party} has of a job of {spec.job.protocol} is not written as an ONNX graph")

    def score_own_columns(self, setup: Setup[S]) -> Outcome:
        """What the label party's own columns alone say of its rows, without a peer. Raises ModelUnfit."""
        raise ModelUnfit(f"a job of {setup.spec.job.protocol} applies no model that has own columns alone")

    # For whoever runs it

    def flow(self, setup: Setup[S]) -> Flow[Outcome]:
        """The role that this party plays in its job."""
        flow: Flow[Outcome] = self.roles(setup.spec)[setup.spec.role_of(setup.me)](setup)
        return flow


def one_of_each_role(spec: JobSpec) -> dict[Role, PartyId]:
    """The first party of each role: parties of one role plan alike."""
    return {spec.role_of(party): party for party in reversed(spec.parties)}
