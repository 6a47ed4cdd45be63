"""One party's server process: both apps on their two ports, one Party behind them."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from api.connections import HEAD_BYTES, ConnectionSlots, PromptConnection
from api.operator.app import operator_app
from api.peer.app import peer_app
from api.request_log import RefusalLog, RequestIds, RequestInLine
from parties.errors import PortInUse
from parties.party import Party
from parties.processes import close_memory, give_memory_back
from parties.settings import ServerSettings, load, token_hash
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
    operator_token_hash = token_hash(folder)
    os.umask(0o077)
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(RequestInLine())
    logging.basicConfig(level=logging.INFO, handlers=[handler], format=LOG_LINE)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(_listen(settings.server, name)) for name in ("operator_port", "peer_port")]
        party = Party(folder, settings)
        try:
            apps = {"operator port": operator_app(party, operator_token_hash), "peer port": peer_app(party)}
            asyncio.run(_serve(party, apps, sockets))
        finally:
            party.close()


async def _serve(party: Party, apps: Mapping[str, ASGIApp], sockets: list[socket.socket]) -> None:
    servers = [_server(port, app) for port, app in apps.items()]
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    serving = [asyncio.create_task(server.serve([listener])) for server, listener in zip(servers, sockets, strict=True)]
    operator, peers = (listener.getsockname()[1] for listener in sockets)
    host = party.settings.server.host
    sys.stdout.write(f"{party.name} is ready: operator http://{host}:{operator}, peers http://{host}:{peers}\n")
    sys.stdout.flush()
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([stopping, *serving], return_when=asyncio.FIRST_COMPLETED)
    # Jobs end first: their peers are told, and whoever waits for an event is answered.
    await asyncio.to_thread(party.close)
    for server in servers:
        server.should_exit = True
    await asyncio.gather(*serving)
    stopping.cancel()


def _server(port: str, app: ASGIApp) -> "_Server":
    log = RefusalLog(port)
    connection: Any = partial(PromptConnection, slots=ConnectionSlots(), log=log)
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


def _listen(server: ServerSettings, name: str) -> socket.socket:
    port: int = getattr(server, name)
    # Named TCP, or asyncio does not know it for TCP and leaves Nagle's algorithm on: 40 ms for every answer.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((server.host, port))
        # A bound port that does not listen can be bound twice: listen now, accept later.
        listener.listen()
    except OSError as error:
        listener.close()
        raise PortInUse(
            f"port {port} ({name}) of {server.host} is taken by another process: {error.strerror}",
            fix=f"Stop that process, or set server.{name} in party.toml or VFL_SERVER__{name.upper()}.",
        ) from error
    return listener
