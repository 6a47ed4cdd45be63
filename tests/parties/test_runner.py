"""What a role is told of the time it waited for a peer."""

import pytest

from parties.pipe import Delivered
from parties.runner import Inboxes
from vfl.messages import ClientReady, encode

HOUR = 3600.0


@pytest.fixture
def inboxes() -> Inboxes:
    return Inboxes(["client"], [])


def test_a_message_that_is_there_costs_none_of_the_time_given_for_it(inboxes: Inboxes) -> None:
    inboxes.put(Delivered("client", "ClientReady", memoryview(encode(ClientReady()))))
    taken = inboxes.take("client", HOUR)
    assert isinstance(taken.message, ClientReady)
    assert taken.waited_seconds < HOUR


def test_a_peer_that_left_is_told_apart_from_one_that_was_late(inboxes: Inboxes) -> None:
    assert inboxes.take("client", 0.01).waited_seconds >= 0.01
    inboxes.leave("client")
    assert inboxes.take("client", HOUR).waited_seconds < HOUR
