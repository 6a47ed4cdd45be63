"""A call to a party, whatever answers there: it ends by its deadline, with the obstacle that it met."""

import contextlib
import socket
import ssl
from collections.abc import Callable

import pytest
from identities import identity_of, tls_at, tls_of
from played_servers import BANK, TELCO, listening

from parties.doctor.call import Blocked, Call
from parties.doctor.obstacles import STEP, Obstacle, meaning
from parties.trust.certificates import client_context, issue_leaf, server_context

SECONDS = 1.0
BYTES = 1000
"""More than go out, one after the other, before a call's deadline."""


def dripping(answer: Callable[[int], bytes]) -> Callable[[socket.socket], None]:
    """A server with telco's key that says one piece after the other, slowly."""

    def drip(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), tls_at(TELCO, BANK).wrap_socket(connection, server_side=True) as secured:
            secured.settimeout(0.05)
            for number in range(BYTES):
                secured.sendall(answer(number))
                with contextlib.suppress(TimeoutError):
                    while secured.recv(4096):
                        pass

    return drip


def obstacle(handle: Callable[[socket.socket], None]) -> Obstacle:
    with listening(handle) as address:
        return met(address, tls_of(BANK, TELCO))


def met(address: str, context: ssl.SSLContext) -> Obstacle:
    with pytest.raises(Blocked) as caught, Call(address, context, SECONDS) as call:
        call.greet(TELCO)
    return caught.value.obstacle


def test_a_server_that_answers_a_byte_at_a_time_holds_no_call_beyond_its_deadline() -> None:
    assert obstacle(dripping(lambda _: b"H")) is Obstacle.TOO_SLOW
    assert obstacle(dripping(lambda number: b"HTTP/1.1 200 OK\r\nx: " if number == 0 else b"y")) is Obstacle.TOO_SLOW


@pytest.mark.parametrize(
    "said", [b"hello", b'{"party":"\xff"}', b'{"more":' + b"[" * 5000], ids=["page", "noise", "deep"]
)
def test_a_web_server_with_the_peers_key_is_no_party(said: bytes) -> None:
    page = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(said), said)
    assert obstacle(dripping(lambda number: page if number == 0 else b"")) is Obstacle.NOT_A_PARTY


def test_a_peer_that_takes_our_certificate_for_expired_points_to_the_clocks() -> None:
    expired = issue_leaf(identity_of(BANK).private, BANK, days=-1)
    context = client_context(expired, (identity_of(TELCO).key,))

    def serve(connection: socket.socket) -> None:
        listening_context = server_context(issue_leaf(identity_of(TELCO).private, TELCO), [identity_of(BANK).key])
        with contextlib.suppress(ssl.SSLError):
            listening_context.wrap_socket(connection, server_side=True).close()

    with listening(serve) as address:
        assert met(address, context) is Obstacle.CALLER_OVERDUE


@pytest.mark.parametrize("each", Obstacle)
def test_every_obstacle_ends_a_step_and_says_what_to_do_at_whom(each: Obstacle) -> None:
    side, found, fix = meaning(each, BANK, TELCO, "vfl.example.org:7102")
    assert each in STEP
    assert side in {BANK, TELCO, "between"}
    assert found.endswith(".")
    assert fix.endswith(".")
