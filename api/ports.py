"""The ports of one server process: what listens on each, and how they end together."""

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from api.connections import HEAD_BYTES, ConnectionSlots, PromptConnection, everybody
from api.request_log import RefusalLog, RequestIds, RequestInLine
from parties.errors import PortInUse
from parties.wire.transport import KEEP_ALIVE_SECONDS

LOG_LINE = "%(asctime)s %(levelname)s %(message)s%(request)s"
FAREWELL_SECONDS = 3


class PortServer(uvicorn.Server):
    """Several of these may share one process, so none may take its signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def port_server(
    port: str,
    app: ASGIApp,
    context: Callable[[], ssl.SSLContext] | None = None,
    admits: Callable[[str, str], bool] = everybody,
) -> PortServer:
    """`port` is its name in the log; the rest is what PromptConnection takes."""
    log = RefusalLog(port)
    connection: Any = partial(PromptConnection, slots=ConnectionSlots(), log=log, context=context, admits=admits)
    return PortServer(
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


def listen(host: str, port: int, name: str, fix: str) -> socket.socket:
    """Raises PortInUse, which says how to `fix` it."""
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
        raise PortInUse(f"port {port} ({name}) of {host} cannot be used: {error.strerror}", fix=fix) from error
    return listener


def log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(RequestInLine())
    logging.basicConfig(level=logging.INFO, handlers=[handler], format=LOG_LINE)
    logging.getLogger("httpx").setLevel(logging.WARNING)


async def serve_until_told(
    servers: Sequence[PortServer], sockets: Sequence[socket.socket], ready: str, close: Callable[[], None]
) -> None:
    """Until SIGTERM or SIGINT; prints the line `ready` before. `close` is called while the ports still answer."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    serving = [asyncio.create_task(server.serve([listener])) for server, listener in zip(servers, sockets, strict=True)]
    sys.stdout.write(f"{ready}\n")
    sys.stdout.flush()
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([stopping, *serving], return_when=asyncio.FIRST_COMPLETED)
    await asyncio.to_thread(close)
    for server in servers:
        server.should_exit = True
    await asyncio.gather(*serving)
    stopping.cancel()
