"""The OpenAPI description: how to log in, and every refusal a route can answer with."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.security import HTTPBearer
from pydantic import BaseModel

from api.errors import InvalidRequest

LOGIN = HTTPBearer(
    scheme_name="operatorToken",
    description="The content of `operator.token` in the party's folder.",
    auto_error=False,  # the token is asked for before a route is looked for
)

REFUSALS = {
    400: "The body cannot be read.",
    401: "The token is missing or wrong.",
    403: "A page in a browser made the request, or this party's own rules refuse it.",
    404: "There is no such job.",
    408: "The body came too slowly.",
    409: "The request does not fit what this party is, knows or has been asked before.",
    413: "The body is too large.",
    421: "The request names another host than this machine.",
    422: "The request does not have the documented form, or no job can be made of it.",
    500: "A bug: the server's log has it under the request's id.",
    502: "A peer cannot be reached, or is not what it should be.",
    503: "Too much is on its way; try again.",
    507: "The party's folder cannot be written.",
}


class ProblemBody(BaseModel):
    """RFC 9457; `code` stands in docs/errors.md."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str
    safe: str
    request_id: str


ALWAYS = (401, 403, 421, 422, 500, 503)


PROBLEM = {"application/problem+json": {"schema": {"$ref": f"#/components/schemas/{ProblemBody.__name__}"}}}


def refusals(*more: int) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`: those every route has, and its own.

    They name the schema and do not bring the model: FastAPI would make a validator for each of some 400 refusals, which
    took longer than the rest of a server's start.
    """
    return {status: {"content": PROBLEM, "description": REFUSALS[status]} for status in sorted({*ALWAYS, *more})}


async def known_parameters_only(request: Request) -> None:
    """A parameter this route does not have would be ignored without a word. Raises InvalidRequest."""
    parameters = {parameter.alias for parameter in request.scope["route"].dependant.query_params}
    for name in request.query_params:
        if name not in parameters:
            raise InvalidRequest(
                f"query.{name[:100]}: there is no such parameter here",
                fix=f"Known are {', '.join(sorted(parameters))}." if parameters else "This route takes none.",
            )


def describe(app: FastAPI) -> dict[str, Any]:
    """As FastAPI makes it, with the body of refusals, and the request's id at each answer."""
    description = app.openapi()
    description["components"]["schemas"][ProblemBody.__name__] = ProblemBody.model_json_schema()
    for operations in description["paths"].values():
        for operation in operations.values():
            for response in operation["responses"].values():
                response.setdefault("headers", {})["X-Request-ID"] = {
                    "description": "Stands in each line of the server's log about this request.",
                    "schema": {"type": "string"},
                }
    return description
