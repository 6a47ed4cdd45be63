"""Whatever is sent to a route of either port, the answer is no bug; made from the routes, so a new one is covered."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import anyio
import httpx
import pytest
from identities import identity_of
from played_peers import PlayedPeer, party

from api.operator.app import operator_app
from api.peer.app import peer_app
from parties.party import Party
from parties.trust.certificates import issuer_name

LOGIN, HASHED = {"authorization": "Bearer known"}, hashlib.sha256(b"known").digest()
VALUES: list[Any] = [
    "a\0b",
    "../../../../etc/passwd",
    "/dev/zero",
    "a" * 300 + "/b",
    "",
    "\u202e%00",
    -1,
    10**400,
    float("nan"),
    True,
    None,
    [[[[[]]]]],
    {"a": {"b": [1] * 100}},
]
NO_BUG = {502, 503, 507}
"""That a peer is out of reach, that there is too much to do, or that something cannot be stored."""
NESTED = b"\x81\xa4more" + b"\x91" * 5000 + b"\xc0"
BODIES = [
    b"",
    b"\xc1",
    b"[",
    b"\x81\xa3\xff\xfe\xfd\xc0",
    NESTED,
    b"\xdf\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    bytes(70_000),
    b"\x0f\xff" + b"\x91" * 4095 + bytes(100),
    b"old " + b"9" * 30 + b"\n\n",
    b"old 0\n\nhub/audit-log\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n",
]
"""Of the peer port: no text, no map, maps and texts of four gigabytes, and heads of a log without a signature."""

Json = dict[str, Any]


@pytest.fixture
def ada(tmp_path: Path) -> Iterator[Party]:
    made = party(tmp_path, "ada", [PlayedPeer("hub")], 1.0)
    yield made
    made.close()


def bodies(description: Json, operation: Json) -> Iterator[Json | None]:
    """One field at a time holds something else than it should."""
    if "requestBody" not in operation:
        yield None
        return
    named = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    schema = description["components"]["schemas"][named.rpartition("/")[2]]
    usual = {"string": "x", "array": [], "integer": 1, "number": 1, "object": {}}
    needed = {name: usual.get(schema["properties"][name].get("type"), "x") for name in schema.get("required", ())}
    for name in schema["properties"]:
        yield from (needed | {name: value} for value in VALUES)


def requests(description: Json) -> Iterator[tuple[str, str, Json | None]]:
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            for value in VALUES[:6]:
                filled = re.sub(r"{\w+}", quote(value, safe="") or "x", path)
                queries = [
                    f"?{each['name']}={quote(value)}"
                    for each in operation.get("parameters", ())
                    if each["in"] == "query"
                ]
                for query in ("", *queries):
                    yield method, filled + query, None
            for body in bodies(description, operation):
                yield method, re.sub(r"{\w+}", "x", path), body


def test_no_value_in_a_request_of_the_operator_ends_in_a_bug(ada: Party) -> None:
    app = operator_app(ada, HASHED)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)

    async def ask() -> list[Any]:
        found = []
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=LOGIN) as client:
            description = (await client.get("/openapi.json")).json()
            for method, url, body in requests(description):
                if "/doctor" in url:  # it looks at the whole machine, and has its own tests
                    continue
                content = None if body is None else json.dumps(body)
                for kind in ({"content-type": "application/json"}, {}) if content else ({},):
                    answer = await client.request(method, url, content=content, headers=kind)
                    if answer.status_code >= 500 and answer.status_code not in NO_BUG:
                        found.append((method, url, content, answer.text))
        return found

    assert anyio.run(ask) == []


def test_a_body_that_is_not_sent_as_json_is_refused_and_the_answer_says_how_to_send_it(ada: Party) -> None:
    app = operator_app(ada, HASHED)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=LOGIN) as client:
            return await client.post("/v1/models", content=b'{"folder": "half"}')

    answer = anyio.run(ask)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "add the header `content-type: application/json`" in answer.json()["detail"]


def test_no_bytes_of_a_trusted_peer_end_in_a_bug_on_any_route(ada: Party) -> None:
    app = peer_app(ada)

    async def status(path: str, body: bytes) -> int:
        scope: Json = {"type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "path": path}
        scope |= {"raw_path": path.encode(), "query_string": b"", "headers": [(b"host", b"127.0.0.1")]}
        scope["state"] = {"connection": SimpleNamespace(issuer=issuer_name(identity_of("hub").key))}
        said: list[Json] = []

        async def receive() -> Json:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            said.append(message)

        await app(scope, receive, send)
        return int(said[0]["status"])

    async def ask() -> set[int]:
        return {await status(route.path, body) for route in app.routes for body in BODIES}  # type: ignore[attr-defined]

    assert max(anyio.run(ask)) < 500
