"""Domain errors as problem+json (RFC 9457), with the code, the hint and what is safe (errors.md)."""

from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse

from api.request_log import current_request
from parties.errors import InternalError, printable
from vfl.errors import JobError

STATUS = {
    "unauthorised": 401,
    "unknown_job": 404,
    "policy_refused": 403,
    "not_the_coordinator": 409,
    "unknown_peer": 409,
    "wire_version_differs": 502,
    "peer_unreachable": 502,
    "peer_misnamed": 502,
    "enrolment_failed": 502,
    "peer_already_known": 409,
    "rotation_refused": 409,
    "too_many_checks": 429,
    "unknown_grant": 404,
    "unknown_dataset": 404,
    "unknown_model": 404,
    "no_scores": 404,
    "dataset_known": 409,
    "model_known": 409,
    "foreign_model": 409,
    "invalid_grant": 409,
    "not_waiting": 409,
    "request_changed": 409,
    "audit_log_contradicted": 409,
    "unknown_leaf": 404,
    "no_session": 409,
    "cannot_pause": 409,
    "already_paused": 409,
    "paused_by_peer": 409,
    "not_paused": 409,
    "scores_late": 503,
    "internal_error": 500,
    "storage_failed": 507,
    "database_busy": 507,
}
"""By code; every other named error says that the request itself cannot be fulfilled: 422."""


NOTHING_CHANGED = "Nothing was changed."
HTTP_HINTS = {
    "no_such_route": "docs/operator_api.md names the routes of the operator port.",
    "method_not_allowed": "docs/operator_api.md names the methods of each route.",
    "too_large": "Send less in one request.",
    "http_error": "Send the request again as docs/operator_api.md describes it, or later where too much is on its way.",
}
"""What can be done where HTTP itself refuses, and no error of the party says more."""


class Unauthorised(JobError):
    """The bearer token is missing or not this party's."""

    code = "unauthorised"
    safe = NOTHING_CHANGED
    fix = "Send the token of operator.token as `Authorization: Bearer ...`."


class InvalidRequest(JobError):
    """The request does not have the documented form."""

    code = "invalid_request"
    safe = NOTHING_CHANGED
    fix = "/openapi.json at this server describes every route, its parameters and its body."


def problem(error: JobError) -> JSONResponse:
    return problem_body(STATUS.get(error.code, 422), error.code, str(error), error.fix, error.safe)


def problem_body(status: int, code: str, detail: str, hint: str = "", safe: str = NOTHING_CHANGED) -> JSONResponse:
    request = current_request()
    request.refusal = code
    body = {
        "type": f"urn:vfl:problem:{code}",
        "title": code.replace("_", " "),
        "status": status,
        "detail": printable(detail),
        "code": code,
        "hint": printable(hint or HTTP_HINTS.get(code, "")),
        "safe": safe,
        "request_id": request.id,
    }
    return JSONResponse(body, status, media_type="application/problem+json")


async def answer_job_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, JobError)  # noqa: S101 - registered for this class
    return problem(error)


async def answer_bad_request(_request: Request, error: Exception) -> JSONResponse:
    first: dict[str, Any] = error.errors()[0]  # type: ignore[attr-defined]
    at = ".".join(str(part) for part in first["loc"])
    return problem(InvalidRequest(f"{at}: {first['msg']}"))


async def answer_bug(_request: Request, _error: Exception) -> JSONResponse:
    """The server's log has the traceback; the answer has nothing of it but the id to look for."""
    return problem(InternalError("a bug in this party's server"))


async def answer_http_error(_request: Request, error: Exception) -> JSONResponse:
    status: int = error.status_code  # type: ignore[attr-defined]
    code = {404: "no_such_route", 405: "method_not_allowed", 413: "too_large"}.get(status, "http_error")
    answer = problem_body(status, code, str(error.detail))  # type: ignore[attr-defined]
    answer.headers.update(error.headers or {})  # type: ignore[attr-defined]
    return answer
