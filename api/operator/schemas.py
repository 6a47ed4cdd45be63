"""What the control API takes and gives, as pydantic models: the OpenAPI document is made from them.

What a party stores as msgspec structs is described once, there; its models here are made from those structs.
"""

import json
import types
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

import msgspec
from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from parties.errors import Failure
from parties.storage.approvals import Approval
from parties.storage.database import Event, Job
from parties.storage.job_list import JobLine
from vfl.notices import Notice


class Asked(BaseModel):
    """The body of a request: no field that is not named here, and no text that cannot be written down."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _is_text(cls, body: Any) -> Any:
        if isinstance(body, bytes):  # its type was not named, or named as another
            raise ValueError("it was not sent as JSON; add the header `content-type: application/json`")  # noqa: TRY004
        try:
            json.dumps(body, ensure_ascii=False).encode()
        except UnicodeEncodeError:  # JSON can name half of a letter, as "\ud800"
            raise ValueError("a text holds half of a letter, which is none") from None
        return body


class NoticeBody(BaseModel):
    """What this party is told beside results and errors; the codes stand in docs/notices.md."""

    kind: Literal["guess", "warning", "note"]
    code: str
    text: str


class Submission(Asked):
    spec: str
    """A job specification as TOML text."""
    notices: list[NoticeBody] = Field(default=[], max_length=20)
    """What was guessed to write it; stored with the job beside this party's own."""


class ProgressBody(BaseModel):
    number: int
    """Of the epoch or round."""
    measures: dict[str, float | None]


class VersionBody(BaseModel):
    version: str
    wire_version: int


class HealthBody(BaseModel):
    status: str
    party: str


def _model(name: str, doc: str, fields: Mapping[str, Any]) -> type[BaseModel]:
    required: dict[str, Any] = {field: (kind, ...) for field, kind in fields.items()}
    return create_model(name, __doc__=doc, **required)


def body_of(struct: type[msgspec.Struct], **instead: Any) -> type[BaseModel]:
    """The model of what `msgspec.to_builtins` makes of a struct: every field is there, and in its place what is named
    otherwise."""
    fields = {field.name: instead.get(field.name) or _described(field.type) for field in msgspec.structs.fields(struct)}
    return _model(f"{struct.__name__}Body", struct.__doc__ or "", fields)


def _described(kind: Any) -> Any:
    if kind is Notice:
        return NoticeBody
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return body_of(kind)
    return _list_of(_described(get_args(kind)[0])) if get_origin(kind) in {list, tuple} else kind


def _list_of(kind: Any) -> Any:
    return types.GenericAlias(list, (kind,))


JobBody = body_of(Job, error=body_of(Failure) | None, approval=body_of(Approval) | None)
JobsBody = _model(
    "JobsBody",
    "One page, newest first; `next` is `after` of the next page, null at the end.",
    {"jobs": _list_of(body_of(JobLine)), "next": str | None},
)
ReportBody = _model(
    "ReportBody", "All that the page of a job shows.", {"job": JobBody, "progress": _list_of(ProgressBody)}
)
EventsBody = _model("EventsBody", "", {"events": _list_of(body_of(Event)), "last": int, "state": str})
