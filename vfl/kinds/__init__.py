"""The kinds of job by name, and how a specification of any of them is read: from TOML, or from a peer's bytes.

A literal dict, and the only registry of kinds there is. A new kind is one file in this folder and one entry here
(docs/adding_a_job_kind.md).
"""

import tomllib
from typing import Any, TypeVar

import msgspec

from vfl.errors import SpecConflict, SpecError
from vfl.flow import Flow
from vfl.kind import Kind
from vfl.kinds.alignment import ALIGNMENT
from vfl.kinds.rounds import ROUNDS
from vfl.kinds.training import TRAINING
from vfl.reports import Outcome
from vfl.setup import Setup
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId
from vfl.spec.unreadable import unreadable

S = TypeVar("S", bound=JobSpec)

KINDS: dict[str, Kind[Any, Any]] = {
    "alignment": ALIGNMENT,
    "training": TRAINING,
    "rounds": ROUNDS,
}
"""By `job.protocol`."""


def kind_of(spec: JobSpec) -> Kind[Any, Any]:
    return KINDS[spec.job.protocol]


def flow_of(setup: Setup[Any]) -> Flow[Outcome]:
    """The role that this party plays in its job, of whatever kind."""
    return kind_of(setup.spec).flow(setup)


def allowed(spec: JobSpec, sender: PartyId, receiver: PartyId, message: str) -> bool:
    """May `sender` send `receiver` a message of this kind under this job?"""
    if sender not in spec.parties or receiver not in spec.peers_of(sender):
        return False
    ends = (spec.role_of(sender), spec.role_of(receiver))
    routes = kind_of(spec).routes(spec)
    return any((route.sender, route.receiver) == ends and route.message.kind() == message for route in routes)


def sendable(spec: JobSpec, sender: PartyId) -> set[str]:
    """Every kind of message that `sender` may send under this job."""
    role = spec.role_of(sender)
    return {route.message.kind() for route in kind_of(spec).routes(spec) if route.sender == role}


class _JobHead(msgspec.Struct):
    protocol: str = "training"


class _Head(msgspec.Struct):
    """As much of a specification as tells its kind."""

    job: _JobHead = msgspec.field(default_factory=_JobHead)


def decode_spec(data: bytes) -> JobSpec:
    """A peer's bytes as a specification; refused unless they are the canonical encoding of it (party_settings.md)."""
    specification: Any = _Head
    try:
        specification = _kind(msgspec.msgpack.decode(data, type=_Head)).specification
        spec: JobSpec = msgspec.msgpack.decode(data, type=specification)
    except UnicodeDecodeError as error:
        raise SpecError("the proposed specification holds text that is not UTF-8") from error
    except msgspec.DecodeError as error:
        raise unreadable(error, specification, (kind.specification for kind in KINDS.values())) from error
    if spec.encoded() != data:
        raise SpecError("the proposed specification is not in canonical form")
    return spec


def read_spec(text: str) -> JobSpec:
    """A TOML document as a specification. Raises SpecError with the key and, for a typo, the nearest known key."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"job specification: {error}") from error
    return spec_of(document)


def read_spec_as(kind: type[S], text: str) -> S:
    """The same, for a caller that handles one kind only. Raises SpecError."""
    spec = read_spec(text)
    if not isinstance(spec, kind):
        raise SpecError(f"job specification: job.protocol is {spec.job.protocol!r}, and this command takes another")
    return spec


def spec_of(document: dict[str, Any]) -> JobSpec:
    """A document already read from TOML. Raises SpecError."""
    specification: Any = _Head
    try:
        kind = _kind(msgspec.convert(document, type=_Head))
        _check_tables(kind, document)
        specification = kind.specification
        spec: JobSpec = msgspec.convert(kind.completed(document), type=specification)
    except msgspec.ValidationError as error:
        raise unreadable(error, specification, (kind.specification for kind in KINDS.values())) from error
    return spec


def _kind(head: _Head) -> Kind[Any, Any]:
    kind = KINDS.get(head.job.protocol)
    if kind is None:
        raise SpecError(f"job specification: job.protocol {head.job.protocol!r} is none of {', '.join(KINDS)}")
    return kind


def _check_tables(kind: Kind[Any, Any], document: dict[str, Any]) -> None:
    """Raises SpecConflict for a table that belongs to another kind of job."""
    tables = {table for other in KINDS.values() for table in other.specification.__struct_fields__}
    for table in sorted((tables - set(kind.specification.__struct_fields__)) & document.keys()):
        raise SpecConflict(
            f"job specification: X15: [{table}] does not belong to this job.protocol: parts are of rounds, and "
            "rounds hold no ciphertexts",
            fix=f"Leave [{table}] out, or set job.protocol to the protocol it belongs to.",
        )
