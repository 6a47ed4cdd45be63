"""Who may stay connected to a port, and for how long without saying what it wants: uvicorn alone waits for ever.

Where a port speaks TLS it begins here too, so that a connection has a place and a deadline before its handshake, and so
that who is trusted is asked anew for every connection. Who may not even begin is told by address.
"""

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import Any

import h11
from starlette.responses import Response
from uvicorn.protocols.http.h11_impl import H11Protocol

from api.errors import problem_body
from api.request_log import RefusalLog
from parties.trust.certificates import issuer_of

HEAD_SECONDS = 10.0
HEAD_BYTES = 16 << 10
CONNECTIONS, FROM_ONE_ADDRESS = 256, 64


def everybody(_caller: str, _called: str) -> bool:
    """No address is turned away."""
    return True


class ConnectionSlots:
    """The connections of one port: so many in all, and so many from one address.

    Where there are too many the one gives way that has kept the server waiting longest. A connection over which our
    operator or the peer of a job was served gives way after all strangers; one whose answer is being made never does.
    """

    def __init__(self, in_all: int = CONNECTIONS, from_one_address: int = FROM_ONE_ADDRESS) -> None:
        self._in_all, self._from_one_address = in_all, from_one_address
        self._held: set[PromptConnection] = set()

    def take(self, new: "PromptConnection") -> bool:
        """Whether the new connection has a place now."""
        neighbours = {held for held in self._held if held.address == new.address}
        for crowd, most in ((neighbours, self._from_one_address), (self._held, self._in_all)):
            if len(crowd) >= most:
                waiting = [held for held in crowd if held.is_waiting]
                if not waiting:
                    return False
                last = min(waiting, key=lambda held: (held.is_trusted, held.waiting_since))
                last.give_way()
                self._held.discard(last)
        self._held.add(new)
        return True

    def leave(self, connection: "PromptConnection") -> None:
        self._held.discard(connection)


class PromptConnection(H11Protocol):
    """Closes a connection whose request head is not whole ten seconds after it was due (envelopes.md).

    It is due when the connection opens, and again with the first byte of each further request; between requests
    uvicorn's own keep-alive counts.
    """

    head_seconds = HEAD_SECONDS

    def __init__(
        self,
        *arguments: Any,
        slots: ConnectionSlots,
        log: RefusalLog,
        context: Callable[[], ssl.SSLContext] | None = None,
        admits: Callable[[str, str], bool] = everybody,
        **options: Any,
    ) -> None:
        """`context` answers what TLS shows and trusts now; without it the port speaks HTTP in clear. `admits` is asked
        about the addresses of both ends before a byte is read."""
        super().__init__(*arguments, **options)
        self._slots, self._log, self._context, self._admits = slots, log, context, admits
        self._handshake: asyncio.Task[None] | None = None
        self._early: list[bytes] = []
        """What came with the last piece of the handshake."""
        self.issuer = ""
        """Who issued the certificate of the other end, as TLS has verified; empty where none was asked for."""
        self._head_due: asyncio.TimerHandle | None = None
        self.address = ""
        self.waiting_since = time.monotonic()
        self.is_trusted = False

    def trust(self) -> None:
        """Somebody we know speaks here: our operator, or the peer of a job."""
        self.is_trusted = True

    @property
    def is_waiting(self) -> bool:
        """Whether the server waits for the other end: for a request, or for the rest of one."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self.address = self.client[0] if self.client else ""
        if not self._admits(self.address, self.server[0] if self.server else ""):
            self._log.unreadable(self.address, "a connection was refused: this address is in no network that may call")
            self.transport.abort()
        elif self._slots.take(self):
            self._await_head()
            if self._context is not None:
                self.transport.pause_reading()  # the first bytes are for TLS
                self._handshake = self.loop.create_task(self._secure(self._context))
        elif self._context is not None:  # there is nobody yet to whom an answer could be said
            self._log.unreadable(self.address, "a connection was refused: too many are busy")
            self.transport.abort()
        else:
            self._log.unreadable(self.address, "a connection was refused: too many are busy")
            self._close_with(problem_body(503, "http_error", "too many connections are busy; try again"))

    async def _secure(self, context: Callable[[], ssl.SSLContext]) -> None:
        """The handshake, within the time a request's head may take."""
        plain = self.transport
        try:
            trusted = await asyncio.to_thread(context)
            if plain.is_closing():  # asyncio would wait for its handshake until the end of the time
                raise ConnectionError
            secured = await self.loop.start_tls(
                plain, self, trusted, server_side=True, ssl_handshake_timeout=self.head_seconds
            )
        except (OSError, ssl.SSLError) as error:
            reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or "the other end went away"
            self._log.unreadable(self.address, f"a TLS handshake failed: {reason}")
            error.__traceback__ = None  # it names its own frame, and so would hold 256 KB of asyncio's for long
            plain.abort()
            self.connection_lost(None)  # asyncio tells it of no connection that ended in its handshake
            return
        if secured is None or secured.is_closing():  # it has given way
            return
        certificate = secured.get_extra_info("ssl_object").getpeercert(binary_form=True)
        self.issuer = issuer_of(certificate) if certificate else ""
        super().connection_made(secured)
        self._handshake = None
        for piece in self._early:
            self.data_received(piece)

    def data_received(self, data: bytes) -> None:
        if self._handshake is not None:
            self._early.append(data)
            return
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self._await_head()
        else:
            self._stop_waiting()

    def handle_events(self) -> None:
        super().handle_events()
        if self.cycle is None:
            return
        self.cycle.scope["state"]["connection"] = self  # before the request's task has run
        if self.conn.their_state is h11.DONE and self.conn.trailing_data[0]:
            self._log.unreadable(self.address, "a connection was cut: it asked again before it was answered")
            self.give_way()

    def on_response_complete(self) -> None:
        self.waiting_since = time.monotonic()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        del msg  # uvicorn's words
        self._log.unreadable(self.address, "bytes that are no HTTP request")
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.close()  # in the middle of an answer there is nothing left to say
            return
        self._close_with(problem_body(400, "http_error", "this is no HTTP request"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._slots.leave(self)
        super().connection_lost(exc)
        # All three name this connection, and TLS has 256 KB for one: it goes now, not when Python looks for cycles.
        self._unset_keepalive_if_required()
        self.cycle = self.scope = None  # type: ignore[assignment]

    def shutdown(self) -> None:
        """The server ends. A TLS connection at rest is cut: its other end would answer a farewell only when it speaks
        next."""
        super().shutdown()
        if self._context is not None and self.transport.is_closing():
            self.transport.abort()

    def give_way(self) -> None:
        self._stop_waiting()
        self.transport.abort()

    def _close_with(self, answer: Response) -> None:
        head = f"HTTP/1.1 {answer.status_code} \r\n".encode()
        lines = [name + b": " + value + b"\r\n" for name, value in answer.raw_headers]
        self.transport.write(b"".join([head, *lines, b"connection: close\r\n\r\n", bytes(answer.body)]))
        self.transport.close()

    def _await_head(self) -> None:
        if self._head_due is None:
            self._head_due = self.loop.call_later(self.head_seconds, self._close_late)

    def _close_late(self) -> None:
        self.transport.close()

    def _stop_waiting(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None
