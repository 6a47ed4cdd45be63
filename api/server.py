"""One party's server process: both apps on their two ports, one Party behind them."""

import asyncio
import contextlib
import os
from pathlib import Path

from api.operator.app import operator_app
from api.peer.app import peer_app
from api.ports import listen, log_to_stderr, port_server, serve_until_told
from parties.operator_tls import operator_certificate
from parties.party import Party
from parties.processes import close_memory, give_memory_back
from parties.server_certificate import IssuedCertificate
from parties.settings import load, load_identity, token_hash


def serve(folder: Path) -> None:
    """Run the party of this folder until SIGTERM or SIGINT; its workers end with it.

    Raises SettingsError, PortInUse or PartyInUse before anything is started.
    """
    close_memory()  # it will hold rows and the seeds of this party's draws
    give_memory_back()  # after each large message and result
    settings = load(folder)
    operator_token_hash, identity = token_hash(folder), load_identity(folder, settings)
    certificate = operator_certificate(folder, settings.operator, identity)
    os.umask(0o077)
    log_to_stderr()
    with contextlib.ExitStack() as stack:
        server = settings.server
        ends = (
            (settings.operator.host, server.operator_port, "operator_port"),
            (server.peer_host, server.peer_port, "peer_port"),
        )
        sockets = [stack.enter_context(listen(*end, _another(end[2]))) for end in ends]
        party = Party(folder, settings, identity)
        if isinstance(certificate, IssuedCertificate):
            party.key_rotation.on_rotated(certificate.renew)
        operator = operator_app(party, operator_token_hash)
        servers = [
            port_server(
                "operator port", operator, certificate.context if certificate else None, settings.operator.admits
            ),
            port_server("peer port", peer_app(party), party.peers.tls.server),
        ]
        ready = f"{party.name} is ready: operator {settings.operator_url}, peers https://{server.told_address}"
        try:
            # Jobs end first: their peers are told, and whoever waits for an event is answered.
            asyncio.run(serve_until_told(servers, sockets, ready, party.close))
        finally:
            party.close()


def _another(port: str) -> str:
    return f"Stop that process, or set server.{port} in party.toml or VFL_SERVER__{port.upper()}."
