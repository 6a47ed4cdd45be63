"""A job specification of any kind: read from TOML, exchanged as canonical bytes, equal on all sides or nothing runs.

The kinds share what a party needs to know of a job (parties, roles, links, tables, digest) and nothing else. The
SHA-256 of the canonical bytes, MessagePack of the frozen struct in declaration order, stands in every envelope.
"""

import difflib
import re
import tomllib
from typing import Any, TypeAlias, TypeVar

import msgspec

from vfl.errors import SpecConflict, SpecError
from vfl.spec.rounds import RoundsSpec
from vfl.spec.training import TrainingSpec

JobSpec: TypeAlias = TrainingSpec | RoundsSpec

S = TypeVar("S", TrainingSpec, RoundsSpec)

_KINDS: dict[str, type[TrainingSpec] | type[RoundsSpec]] = {"training": TrainingSpec, "rounds": RoundsSpec}


class _JobHead(msgspec.Struct):
    protocol: str = "training"


class _Head(msgspec.Struct):
    """As much of a specification as tells its kind."""

    job: _JobHead = msgspec.field(default_factory=_JobHead)


def decode_spec(data: bytes) -> JobSpec:
    """A peer's bytes as a specification; refused unless they are the canonical encoding of it (party_settings.md)."""
    try:
        kind = _kind(msgspec.msgpack.decode(data, type=_Head))
        spec = msgspec.msgpack.decode(data, type=kind)
    except UnicodeDecodeError as error:
        raise SpecError("the proposed specification holds text that is not UTF-8") from error
    except msgspec.DecodeError as error:
        raise _readable(error) from error
    if spec.encoded() != data:
        raise SpecError("the proposed specification is not in canonical form")
    return spec


def read_spec(text: str) -> JobSpec:
    """A TOML document as a specification. Raises SpecError with the key and, for a slip, the nearest known one."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"job specification: {error}") from error
    return spec_of(document)


def read_spec_as(kind: type[S], text: str) -> S:
    """The same, for a caller that handles one kind only. Raises SpecError."""
    spec = read_spec(text)
    if not isinstance(spec, kind):
        raise SpecError(f"job specification: this is a job of protocol {spec.job.protocol!r}")
    return spec


def spec_of(document: dict[str, Any]) -> JobSpec:
    """A document already read from TOML. Raises SpecError."""
    try:
        kind = _kind(msgspec.convert(document, type=_Head))
        foreign = {"rounds"} if kind is TrainingSpec else {"encryption", "protection", "split"}
        for table in sorted(foreign & document.keys()):
            raise SpecConflict(
                f"job specification: X15: [{table}] does not belong to this job.protocol: parts are of rounds, and "
                "rounds hold no ciphertexts",
                fix=f"Leave [{table}] out, or set job.protocol to the protocol it belongs to.",
            )
        return msgspec.convert(document, type=kind)
    except msgspec.ValidationError as error:
        raise _readable(error) from error


def _kind(head: _Head) -> type[TrainingSpec] | type[RoundsSpec]:
    kind = _KINDS.get(head.job.protocol)
    if kind is None:
        raise SpecError(f"job specification: job.protocol {head.job.protocol!r} is none of {', '.join(_KINDS)}")
    return kind


def _sections(kind: Any) -> set[Any]:
    """The struct types a specification is made of."""
    found = set()
    for field in msgspec.structs.fields(kind):
        for part in (field.type, *getattr(field.type, "__args__", ())):
            if isinstance(part, type) and issubclass(part, msgspec.Struct):
                found |= {part} | _sections(part)
    return found


SECTIONS = frozenset({TrainingSpec, RoundsSpec} | _sections(TrainingSpec) | _sections(RoundsSpec))
_KNOWN_KEYS = sorted({field for section in SECTIONS for field in section.__struct_fields__})


def _readable(error: msgspec.DecodeError) -> SpecError:
    text = str(error).replace("Object ", "table ").replace(" - at `$.", " - at `").replace(" - at `$`", "")
    unknown = re.search(r"unknown field `(.+?)`", text)
    near = difflib.get_close_matches(unknown[1], _KNOWN_KEYS, n=1) if unknown else []
    return SpecError(f"job specification: {text}", fix=f"Did you mean `{near[0]}`?" if near else "")
