"""Connections that say nothing, bodies that do not come, and pages in a browser: none of them keeps a port busy."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import msgspec
import pytest
import uvicorn
from fastapi import FastAPI, Request
from identities import identity_of
from played_peers import PlayedPeer, party
from starlette.exceptions import HTTPException

from api.browser_guard import BrowserGuard
from api.connections import ConnectionSlots, PromptConnection
from api.errors import answer_http_error
from api.limits import BODIES_AT_ONCE, BodyLimit
from api.peer.app import peer_app
from api.peer.check import CHECKS_AT_ONCE
from api.request_log import RefusalLog
from parties.doctor.half import NONCE_BYTES, ROUTE, Question
from parties.trust.certificates import issuer_name

BOUND_SECONDS = 20.0
LIMIT_BYTES = 1000


class Hasty(PromptConnection):
    head_seconds = 0.2


def app() -> FastAPI:
    served = FastAPI()
    served.add_middleware(BodyLimit, limit_bytes=LIMIT_BYTES, silent_seconds=0.3)
    served.add_middleware(BrowserGuard)
    served.add_exception_handler(HTTPException, answer_http_error)

    @served.post("/")
    async def count(request: Request) -> int:
        return len(await request.body())

    return served


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    connection: Any = partial(Hasty, slots=ConnectionSlots(), log=RefusalLog("test port"))
    server = uvicorn.Server(uvicorn.Config(app(), http=connection, lifespan="off", log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join(BOUND_SECONDS)
    listener.close()


def answer_to(port: int, *pieces: bytes) -> bytes:
    """Everything the server says to these bytes until it closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=BOUND_SECONDS) as connection:
        for piece in pieces:
            connection.sendall(piece)
        heard = b""
        while piece := connection.recv(65536):
            heard += piece
        return heard


HEAD = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4\r\n"


@pytest.mark.parametrize("said", [b"", b"POST", HEAD])
def test_a_connection_without_a_whole_head_is_closed(port: int, said: bytes) -> None:
    assert answer_to(port, said) == b""


def test_a_second_request_must_come_whole_too(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=BOUND_SECONDS) as connection:
        connection.sendall(HEAD + b"\r\nbody")
        heard = b""
        while not heard.endswith(b"\r\n\r\n4"):
            heard += connection.recv(65536)
        assert heard.startswith(b"HTTP/1.1 200 OK")
        connection.sendall(HEAD)
        assert connection.recv(65536) == b""


def test_who_asks_again_before_it_is_answered_loses_its_connection(port: int) -> None:
    """Otherwise one packet would order a thousand answers, and nobody else would be served meanwhile."""
    heard = b""
    with contextlib.suppress(ConnectionResetError):
        heard = answer_to(port, (HEAD + b"\r\nbody") * 1000)
    assert heard.count(b"HTTP/1.1") <= 1


def test_a_body_that_does_not_come_is_answered_and_the_connection_closed(port: int) -> None:
    heard = answer_to(port, HEAD + b"\r\nbo")
    assert heard.startswith(b"HTTP/1.1 408")
    assert b"too slowly" in heard


def request_of(peer: str, path: str) -> dict[str, Any]:
    """What comes to the peer port after the handshake of this peer."""
    scope: dict[str, Any] = {"type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "path": path}
    scope |= {"raw_path": path.encode(), "query_string": b"", "headers": [(b"host", b"127.0.0.1")]}
    connection = SimpleNamespace(issuer=issuer_name(identity_of(peer).key))
    return scope | {"state": {"connection": connection}}


def test_a_peer_that_hangs_up_within_a_body_is_no_error(tmp_path: Path) -> None:
    ada = party(tmp_path, "ada", [PlayedPeer("hub")], 1.0)
    heard = iter([{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(heard)

    async def send(_message: Any) -> None:
        """Nobody is there to read it."""

    anyio.run(peer_app(ada), request_of("hub", "/peer/v1/envelopes"), receive, send)
    ada.close()


def test_a_peer_whose_checks_come_a_byte_at_a_time_holds_up_no_check_of_another(tmp_path: Path) -> None:
    ada = party(tmp_path, "ada", [PlayedPeer("hub"), PlayedPeer("eve")], 1.0)
    app, question = peer_app(ada), msgspec.msgpack.encode(Question(bytes(NONCE_BYTES)))
    answers: list[int] = []

    async def byte() -> Any:
        await anyio.sleep(1)
        return {"type": "http.request", "body": b"0", "more_body": True}

    async def whole() -> Any:
        return {"type": "http.request", "body": question, "more_body": False}

    async def send(message: Any) -> None:
        answers.append(message.get("status", 0))

    async def ask() -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(CHECKS_AT_ONCE + 1):
                tasks.start_soon(app, request_of("eve", ROUTE), byte, send)
            await anyio.sleep(0.1)  # they have begun
            with anyio.fail_after(BOUND_SECONDS):
                await app(request_of("hub", ROUTE), whole, send)
            tasks.cancel_scope.cancel()

    anyio.run(ask)
    assert answers[0] == 200
    ada.close()


DEEP = b"\x81\xa4more" + b"\x91" * 5000 + b"\xc0"
"""A map whose only value is a list in a list in a list."""


@pytest.mark.parametrize(
    "said",
    [b"\xc1", b"\x81\xa3\xff\xfe\xfd\xc0", DEEP, msgspec.msgpack.encode(Question(bytes(NONCE_BYTES), spec=DEEP))],
    ids=["noise", "a key that is no text", "a deep list", "a specification that nests"],
)
def test_what_a_peer_sends_in_place_of_a_check_is_refused_as_unreadable_and_no_bug(tmp_path: Path, said: bytes) -> None:
    ada = party(tmp_path, "ada", [PlayedPeer("hub")], 1.0)
    answers: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": said, "more_body": False}

    async def send(message: Any) -> None:
        answers.append(message)

    anyio.run(peer_app(ada), request_of("hub", ROUTE), receive, send)
    assert (answers[0]["status"], msgspec.json.decode(answers[1]["body"])["code"]) == (422, "unreadable_body")
    ada.close()


def test_bodies_on_their_way_have_a_bound_together(port: int) -> None:
    head = HEAD.replace(b"4\r\n", b"1000\r\n") + b"\r\n"
    held = [socket.create_connection(("127.0.0.1", port)) for _ in range(BODIES_AT_ONCE + 1)]
    try:
        for connection in held:
            connection.settimeout(BOUND_SECONDS)
            connection.sendall(head + bytes(LIMIT_BYTES - 1))
        answers = {connection.recv(12) for connection in held}
    finally:
        for connection in held:
            connection.close()
    assert answers == {b"HTTP/1.1 503", b"HTTP/1.1 408"}
    assert httpx.post(f"http://127.0.0.1:{port}/", content=b"1234", trust_env=False).json() == 4


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost"}, 200),
        ({"host": "LOCALHOST:7102"}, 200),
        ({"host": "[::1]:7102"}, 200),
        ({"host": "rebound.example"}, 421),
        ({"host": "rebound.example:7102"}, 421),
        ({"host": "127.0.0.1.rebound.example"}, 421),
        ({"host": ""}, 421),
        ({"origin": "http://127.0.0.1:7102"}, 403),
        ({"origin": "null"}, 403),
    ],
)
def test_only_programs_of_this_machine_are_answered(port: int, headers: dict[str, Any], status: int) -> None:
    answer = httpx.post(f"http://127.0.0.1:{port}/", content=b"1234", headers=headers, trust_env=False)
    assert answer.status_code == status
