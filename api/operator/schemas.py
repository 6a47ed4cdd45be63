"""What the control API takes and gives, as pydantic models: the OpenAPI document is made from them."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class NoticeBody(BaseModel):
    """What this party is told beside results and errors; the codes stand in docs/notices.md."""

    kind: Literal["guess", "warning", "note"]
    code: str
    text: str


class Submission(BaseModel):
    model_config = ConfigDict(extra="forbid")

    spec: str
    """A job specification as TOML text."""
    notices: list[NoticeBody] = Field(default=[], max_length=20)
    """What was guessed to write it; stored with the job beside this party's own."""


class TrafficBody(BaseModel):
    direction: str
    peer: str
    kind: str
    messages: int
    payload_bytes: int


class SecondsBody(BaseModel):
    training: float | None
    total: float | None


class ErrorBody(BaseModel):
    code: str
    message: str
    safe: str
    fix: str
    side: str


class JobBody(BaseModel):
    """One job as this party sees it; times are UTC."""

    id: str
    name: str
    state: str
    role: str
    party: str
    peers: list[str]
    spec_digest: str
    attempt: int
    created_at: str
    started_at: str | None
    finished_at: str | None
    step: int
    steps: int
    epoch: int
    epochs: int
    worker_pid: int | None
    error: ErrorBody | None
    metrics: dict[str, float]
    operations: dict[str, int]
    series: dict[str, list[float | None]]
    classes: list[str]
    notices: list[NoticeBody]
    traffic: list[TrafficBody]
    reveals: list[dict[str, Any]]
    plan: dict[str, Any]
    model_digest: str | None
    model_path: str | None
    specification: dict[str, Any]
    seconds: SecondsBody
    relaxed_limits: list[str]
    attendance: list[str]


class JobLineBody(BaseModel):
    """A job in a list; the rest of it is at its own address."""

    id: str
    name: str
    state: str
    role: str
    party: str
    attempt: int
    created_at: str
    started_at: str | None
    finished_at: str | None
    step: int
    steps: int
    epoch: int
    epochs: int
    error_code: str | None


class JobsBody(BaseModel):
    """One page, newest first."""

    jobs: list[JobLineBody]
    next: str | None
    """`after` of the next page; null at the end."""


class ProgressBody(BaseModel):
    number: int
    """Of the epoch or round."""
    measures: dict[str, float | None]


class ReportBody(BaseModel):
    """All that the page of a job shows."""

    job: JobBody
    progress: list[ProgressBody]


class EventBody(BaseModel):
    number: int
    time: str
    kind: str
    text: str
    data: dict[str, Any]


class EventsBody(BaseModel):
    events: list[EventBody]
    last: int
    state: str


class VersionBody(BaseModel):
    version: str
    wire_version: int


class HealthBody(BaseModel):
    status: str
    party: str
