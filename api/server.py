"""One party's server process: both apps on their two ports, one Party behind them."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from api.connections import HEAD_BYTES, PromptConnection
from api.operator.app import operator_app
from api.peer.app import peer_app
from parties.errors import PortInUse
from parties.party import Party
from parties.settings import ServerSettings, load, token_hash
from parties.transport import KEEP_ALIVE_SECONDS

CONNECTIONS = 64
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
    settings = load(folder)
    operator_token_hash = token_hash(folder)
    os.umask(0o077)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(_listen(settings.server, name)) for name in ("operator_port", "peer_port")]
        party = Party(folder, settings)
        try:
            asyncio.run(_serve(party, [operator_app(party, operator_token_hash), peer_app(party)], sockets))
        finally:
            party.close()


async def _serve(party: Party, apps: list[FastAPI], sockets: list[socket.socket]) -> None:
    servers = [
        _Server(
            uvicorn.Config(
                app,
                http=PromptConnection,
                h11_max_incomplete_event_size=HEAD_BYTES,
                log_config=None,
                access_log=False,
                log_level="warning",
                lifespan="off",
                ws="none",
                server_header=False,
                limit_concurrency=CONNECTIONS,
                timeout_keep_alive=int(KEEP_ALIVE_SECONDS) + 30,
                timeout_graceful_shutdown=FAREWELL_SECONDS,
            )
        )
        for app in apps
    ]
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


def _listen(server: ServerSettings, name: str) -> socket.socket:
    port: int = getattr(server, name)
    listener = socket.socket()
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
