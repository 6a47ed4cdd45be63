"""The server process of a witness that is no party."""

import asyncio
import contextlib
import os
from pathlib import Path

import anyio
from fastapi import FastAPI
from starlette.exceptions import HTTPException

from api.errors import answer_http_error, answer_job_error
from api.limits import BodyLimit
from api.ports import listen, log_to_stderr, port_server, serve_until_told
from api.witness import REQUEST_LIMIT, add_witness_route
from parties.server_certificate import IssuedCertificate, OwnCertificate
from parties.server_settings import in_url
from parties.standalone_witness import CA_FILE, SETTINGS_FILE, StandaloneWitness, load_witness
from vfl.errors import JobError

ROUTE = "/add-checkpoint"
REQUESTS_AT_ONCE = 4


def serve_witness(folder: Path) -> None:
    """Run the witness of this folder until SIGTERM or SIGINT. Raises SettingsError, PortInUse, StorageFailed."""
    settings, identity = load_witness(folder)
    os.umask(0o077)
    log_to_stderr()
    certificate = (
        OwnCertificate(folder / settings.certificate, folder / settings.key)
        if settings.certificate
        else IssuedCertificate(identity, folder / CA_FILE)
    )
    fix = f"Stop that process, or set port in {SETTINGS_FILE}."
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listen(settings.host, settings.port, "port", fix))
        witness = StandaloneWitness(folder, settings, identity)
        stack.callback(witness.close)
        server = port_server("witness", witness_app(witness), certificate.context)
        ready = f"{settings.name} is ready: https://{in_url(settings.host)}:{settings.port}{ROUTE}"
        asyncio.run(serve_until_told([server], [listener], ready, lambda: None))


def witness_app(witness: StandaloneWitness) -> FastAPI:
    app = FastAPI(title="witness", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(BodyLimit, limit_bytes=REQUEST_LIMIT)
    app.add_exception_handler(JobError, answer_job_error)
    app.add_exception_handler(HTTPException, answer_http_error)
    limiter = anyio.CapacityLimiter(REQUESTS_AT_ONCE)
    add_witness_route(app, ROUTE, lambda _request, body: witness.cosign(body), limiter)
    return app
