"""The kinds of job by name, and how a specification of any of them is read: from TOML, or from a peer's bytes.

A literal tuple, and the only registry of kinds there is. A new kind is one file in this folder and one line here
(docs/adding_a_job_kind.md).
"""

import functools
import importlib
import tomllib
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec

from vfl.errors import SpecConflict, SpecError
from vfl.flow import Flow
from vfl.kind import Kind
from vfl.reports import Outcome
from vfl.setup import Setup
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId
from vfl.spec.unreadable import placed, unreadable

S = TypeVar("S", bound=JobSpec)

KINDS = (
    "alignment",
    "training",
    "one_pass",
    "prediction",
    "rounds",
)
"""The words of `job.protocol`. Each is a module of this folder, which has its kind as `KIND`."""
BYTE_ORDER_MARK = "\ufeff"
"""Some editors write it at the start of a file."""


@functools.cache
def kind_named(protocol: str) -> Kind[Any, Any]:
    """One of `KINDS`; its module is imported when it is first asked for."""
    kind = importlib.import_module(f"{__name__}.{protocol}").KIND
    if not isinstance(kind, Kind):
        raise TypeError(f"vfl.kinds.{protocol}.KIND is not a Kind")
    return kind


def all_kinds() -> Iterator[Kind[Any, Any]]:
    return map(kind_named, KINDS)


def kind_of(spec: JobSpec) -> Kind[Any, Any]:
    return kind_named(spec.job.protocol)


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
    except RecursionError as error:
        raise SpecError("the proposed specification nests too deeply") from error
    except msgspec.DecodeError as error:
        raise unreadable(error, specification, (kind.specification for kind in all_kinds())) from error
    if spec.encoded() != data:
        raise SpecError("the proposed specification is not in canonical form")
    return spec


def read_spec(text: str) -> JobSpec:
    """A TOML document as a specification. Raises SpecError with the key and, for a typo, the nearest known key."""
    try:
        document = tomllib.loads(text.removeprefix(BYTE_ORDER_MARK))
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"job specification: {error}") from error
    return spec_of(document, text)


def read_spec_as(kind: type[S], text: str) -> S:
    """The same, for a caller that handles one kind only. Raises SpecError."""
    spec = read_spec(text)
    if not isinstance(spec, kind):
        raise SpecError(f"job specification: job.protocol is {spec.job.protocol!r}, and this command takes another")
    return spec


def spec_of(document: dict[str, Any], text: str = "") -> JobSpec:
    """A document already read from TOML, from this text if an error is to name the line. Raises SpecError."""
    specification: Any = _Head
    try:
        kind = _kind(msgspec.convert(document, type=_Head))
        _check_tables(kind, document)
        specification = kind.specification
        spec: JobSpec = msgspec.convert(kind.completed(document), type=specification)
    except msgspec.ValidationError as error:
        raise unreadable(error, specification, (kind.specification for kind in all_kinds()), text) from error
    except SpecError as error:
        raise placed(error, text) from error
    return spec


def _kind(head: _Head) -> Kind[Any, Any]:
    if head.job.protocol not in KINDS:
        raise SpecError(f"job specification: job.protocol {head.job.protocol!r} is none of {', '.join(KINDS)}")
    return kind_named(head.job.protocol)


def _check_tables(kind: Kind[Any, Any], document: dict[str, Any]) -> None:
    """Raises SpecConflict for a table that belongs to another kind of job."""
    tables = {table for other in all_kinds() for table in other.specification.__struct_fields__}
    for table in sorted((tables - set(kind.specification.__struct_fields__)) & document.keys()):
        raise SpecConflict(
            f"job specification: X15: [{table}] does not belong to this job.protocol: parts are of rounds, and "
            "rounds hold no ciphertexts",
            fix=f"Leave [{table}] out, or set job.protocol to the protocol it belongs to.",
        )
