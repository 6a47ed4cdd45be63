"""One party's server process: both apps on their two ports, one Party behind them."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from api.connections import HEAD_BYTES, ConnectionSlots, PromptConnection, everybody
from api.operator.app import operator_app
from api.peer.app import peer_app
from api.request_log import RefusalLog, RequestIds, RequestInLine
from parties.errors import PortInUse
from parties.operator_tls import operator_tls
from parties.party import Party
from parties.processes import close_memory, give_memory_back
from parties.settings import ServerSettings, load, load_identity, token_hash
from parties.wire.transport import KEEP_ALIVE_SECONDS

LOG_LINE = "%(asctime)s %(levelname)s %(message)s%(request)s"
FAREWELL_SECONDS = 3


class _Server(uvicorn.Server):
    """Two of these share one process, so neither may take its signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(folder: Path) -> None:
    """Run the party of this folder until SIGTERM or SIGINT; its workers end with it.

    Raises SettingsError, PortInUse or PartyInUse before anything is started.
    """
    close_memory()  # it will hold rows and the seeds of this party's draws
    give_memory_back()  # after each large message and result
    settings = load(folder)
    operator_token_hash, identity = token_hash(folder), load_identity(folder, settings)
    operator_context = operator_tls(folder, settings.operator, identity)
    os.umask(0o077)
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(RequestInLine())
    logging.basicConfig(level=logging.INFO, handlers=[handler], format=LOG_LINE)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with contextlib.ExitStack() as stack:
        ends = ((settings.operator.host, "operator_port"), (settings.server.peer_host, "peer_port"))
        sockets = [stack.enter_context(_listen(settings.server, host, name)) for host, name in ends]
        party = Party(folder, settings, identity)
        try:
            asyncio.run(_serve(party, operator_token_hash, operator_context, sockets))
        finally:
            party.close()


async def _serve(
    party: Party,
    operator_token_hash: bytes,
    operator_context: Callable[[], ssl.SSLContext] | None,
    sockets: list[socket.socket],
) -> None:
    operator, admits = operator_app(party, operator_token_hash), party.settings.operator.admits
    servers = [
        _server("operator port", operator, operator_context, admits),
        _server("peer port", peer_app(party), party.peers.server_context),
    ]
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    serving = [asyncio.create_task(server.serve([listener])) for server, listener in zip(servers, sockets, strict=True)]
    peers = party.settings.server.told_address
    sys.stdout.write(f"{party.name} is ready: operator {party.settings.operator_url}, peers https://{peers}\n")
    sys.stdout.flush()
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([stopping, *serving], return_when=asyncio.FIRST_COMPLETED)
    # Jobs end first: their peers are told, and whoever waits for an event is answered.
    await asyncio.to_thread(party.close)
    for server in servers:
        server.should_exit = True
    await asyncio.gather(*serving)
    stopping.cancel()


def _server(
    port: str,
    app: ASGIApp,
    context: Callable[[], ssl.SSLContext] | None = None,
    admits: Callable[[str, str], bool] = everybody,
) -> "_Server":
    log = RefusalLog(port)
    connection: Any = partial(PromptConnection, slots=ConnectionSlots(), log=log, context=context, admits=admits)
    return _Server(
        uvicorn.Config(
            RequestIds(app, log),
            http=connection,
            h11_max_incomplete_event_size=HEAD_BYTES,
            log_config=None,
            access_log=False,
            log_level="error",  # its warnings are ours, in our words and bounded
            lifespan="off",
            ws="none",
            server_header=False,
            proxy_headers=False,  # who connects is who it is
            timeout_keep_alive=int(KEEP_ALIVE_SECONDS) + 30,
            timeout_graceful_shutdown=FAREWELL_SECONDS,
        )
    )


def _listen(server: ServerSettings, host: str, name: str) -> socket.socket:
    port: int = getattr(server, name)
    # Named TCP, or asyncio does not know it for TCP and leaves Nagle's algorithm on: 40 ms for every answer.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        # A bound port that does not listen can be bound twice: listen now, accept later.
        listener.listen()
    except OSError as error:
        listener.close()
        raise PortInUse(
            f"port {port} ({name}) of {host} cannot be used: {error.strerror}",
            fix=f"Stop that process, or set server.{name} in party.toml or VFL_SERVER__{name.upper()}.",
        ) from error
    return listener
