"""What a party may ask of any job's specification, whatever its kind: said once, and answered by each kind.

A specification is read from TOML, exchanged as canonical bytes, and equal on all sides, or nothing runs. Reading one
needs the kinds, and stands with them in `vfl.kinds`.
"""

import hashlib
from abc import ABCMeta, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from vfl.spec.sections import PARTY_ID, Job, PartyId, Role, Section, TableUse, require


class _AbstractStruct(msgspec.StructMeta, ABCMeta):
    """Lets a struct have abstract methods."""


class JobSpec(Section, metaclass=_AbstractStruct, frozen=True, kw_only=True):
    """The whole agreement of a job. Raises SpecError when built from something that contradicts itself.

    Messages travel between the coordinator and each other party, and nowhere else.
    """

    learns: ClassVar[bool] = True
    """Whether a job of this kind has a task."""

    spec_version: Literal[1] = 1
    job: Job

    @property
    @abstractmethod
    def parties(self) -> tuple[PartyId, ...]:
        """All parties, the coordinator first."""

    @abstractmethod
    def role_of(self, party: PartyId) -> Role:
        """What the party plays in this job."""

    @abstractmethod
    def tables_of(self, party: PartyId) -> dict[str, TableUse]:
        """The tables of one party, by their use; a party's own training rows have the use `rows`."""

    @abstractmethod
    def steps_on(self, rows: int) -> int:
        """About how many steps the party with the most work takes where each has so many rows."""

    @property
    @abstractmethod
    def checkpoints(self) -> int:
        """How many states a role reports before it returns."""

    @property
    @abstractmethod
    def disclosure(self) -> str:
        """What is read of each party's data, in the word that `acceptance.schemes` of a party must name."""

    @property
    def coordinator(self) -> PartyId:
        """Who proposes the job and relays the shares of its seed."""
        return self.parties[0]

    def peers_of(self, party: PartyId) -> tuple[PartyId, ...]:
        """Whom a party exchanges messages with."""
        return self.parties[1:] if party == self.coordinator else (self.coordinator,)

    @property
    def required_parties(self) -> frozenset[PartyId]:
        """The parties without which the job cannot go on; another may leave and come back."""
        return frozenset(self.parties)

    @property
    def resumes(self) -> bool:
        """Whether the job goes on from a checkpoint after a party that it needs was away."""
        return False

    @property
    def minimum_parties(self) -> int:
        """With how many parties, the coordinator among them, the job may begin."""
        return len(self.parties)

    @property
    def join_timeout_seconds(self) -> float:
        """How long parties that the job can do without are waited for, at the beginning and at the end."""
        return float(self.job.deadline_seconds)

    @property
    def first_model(self) -> str:
        """Digest of a registered model the coordinator brings; empty for none."""
        return ""

    @property
    def applied_model(self) -> str:
        """Id of the training whose model the job applies or starts from, each party its own half; empty for none."""
        return ""

    @property
    def session_seconds(self) -> float:
        """For so long the job stays open for what the coordinator's operator asks; 0 where it just does its work."""
        return 0.0

    @property
    def takes_own_values(self) -> bool:
        """Whether what is asked may have other values than the coordinator's table."""
        return False

    @property
    def private_bottom(self) -> bool:
        """Whether a party's own bottom module is part of the model."""
        return False

    @property
    def cohort(self) -> int | None:
        """How many parties are chosen for each step; None where all take part in every step."""
        return None

    @property
    def parts(self) -> tuple[str, ...]:
        """Optional parts of the protocol that this job asks for, by name."""
        return ()

    @property
    def waived(self) -> tuple[str, ...]:
        """Rules that would refuse the job and are waived by name."""
        return ()

    def with_held_out(self, keys: NDArray[np.float64]) -> Self:  # noqa: ARG002 - where the joint seed draws all
        """The same agreement with how many rows are held out, from the hash or time of each row of the coordinator.

        Raises ImpossibleJob where these are none, or all.
        """
        return self

    @property
    def hands_on(self) -> bool:
        """Whether the coordinator hands on what parties have signed for each other."""
        return False

    @property
    def identity_keys(self) -> Mapping[PartyId, bytes]:
        """By which key each party's word is believed where it is handed on; 32 bytes each, and empty where none is."""
        return {}

    def with_identity_keys(self, keys: Mapping[PartyId, bytes]) -> Self:  # noqa: ARG002 - where it hands nothing on
        """The same agreement with these keys."""
        return self

    def encoded(self) -> bytes:
        """The canonical bytes, on which all sides agree: MessagePack of the frozen struct in declaration order."""
        return msgspec.msgpack.encode(self)

    def digest(self) -> bytes:
        """SHA-256 of the canonical bytes, 32 bytes; it stands in every envelope."""
        return hashlib.sha256(self.encoded()).digest()

    def _check_job(self) -> None:
        """What holds for the roster and [job] of any kind. Raises SpecError."""
        job, parties = self.job, self.parties
        require(bool(job.name), "job.name is empty")
        require(len(set(parties)) == len(parties), "roster names a party twice")
        for party in parties:
            require(PARTY_ID.fullmatch(party) is not None, f"roster: {party!r} is not a party name (a-z, 0-9, hyphen)")
        tasks = "binary, multiclass or regression" if self.learns else "none"
        require((job.task != "none") == self.learns, f"job.task of a job of {job.protocol} is {tasks}")
        require(job.deadline_seconds >= 1, "job.deadline_seconds must be at least 1")
        require(
            job.classes == 0 or (job.task == "multiclass" and job.classes >= 3),
            "job.classes is for multiclass jobs and at least 3",
        )
