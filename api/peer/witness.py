"""This party as a witness of its peers' audit logs."""

import anyio
from fastapi import FastAPI, Request

from api.request_log import current_request
from api.witness import add_witness_route
from parties.party import Party
from parties.trust.errors import RewrittenLog
from parties.wire.transport import WITNESS_ROUTE


def add_witness(app: FastAPI, party: Party, limiter: anyio.CapacityLimiter) -> None:
    """Each is answered about its own log alone, by the key that TLS has verified."""

    def cosign(request: Request, body: bytes) -> str:
        try:
            return party.audit.cosign(request.state.connection.issuer, body)
        except RewrittenLog:
            current_request().is_audited = True  # with the head that contradicts
            raise

    add_witness_route(app, WITNESS_ROUTE, cosign, limiter)
