"""A mailbox gives in order, once each, holds a sender back when it is full, and wakes whoever waits when it closes."""

import threading

from parties.worker.mailbox import Mailbox

BOUND = 10.0


def test_items_come_in_order_and_once() -> None:
    box: Mailbox[int] = Mailbox()
    for number in range(3):
        box.put(number, 1)
    assert [box.take() for _ in range(3)] == [0, 1, 2]


def test_a_full_mailbox_holds_its_sender_back_until_something_is_taken() -> None:
    box: Mailbox[int] = Mailbox(limit_bytes=10)
    box.put(1, 12)
    assert not box.has_room
    went_on = threading.Event()

    def send() -> None:
        box.wait_for_room()
        went_on.set()

    threading.Thread(target=send, daemon=True).start()
    assert not went_on.is_set()
    assert box.take() == 1
    assert went_on.wait(BOUND)


def test_closing_wakes_whoever_waits_and_drops_the_rest() -> None:
    box: Mailbox[int] = Mailbox(limit_bytes=1)
    box.put(1, 5)
    ended = threading.Barrier(3, timeout=BOUND)
    empty: Mailbox[int] = Mailbox()
    for wait in (box.wait_for_room, empty.take):
        threading.Thread(target=lambda wait=wait: (wait(), ended.wait()), daemon=True).start()
    box.close()
    empty.close()
    ended.wait()
    assert box.take() is None
