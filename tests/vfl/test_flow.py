"""Roles as generators: typed receiving, readable transcripts, deadlocks that say who waits for whom."""

import pytest

from vfl.errors import DeadlockError, RemoteProtocolError
from vfl.flow import gather, receive, report, run_together, send
from vfl.messages import RowsDigest, StepApplied
from vfl.reports import Remark, RoundDone


def sender(to, *messages):
    for message in messages:
        yield from send(to, message)
    return "sent"


def test_roles_run_together_until_all_have_returned():
    def receiver():
        first = yield from receive(StepApplied, "a", step=1)
        yield from report(Remark("one in"))
        second = yield from receive(StepApplied, "a", step=2)
        return first.step + second.step

    together = run_together({"b": receiver(), "a": sender("b", StepApplied(1), StepApplied(2))})
    assert together.results == {"a": "sent", "b": 3}
    assert together.reports["b"] == [Remark("one in")]
    assert str(together).splitlines() == ["a -> b: StepApplied (24 bytes)"] * 2


def test_a_message_of_another_kind_names_the_peer():
    def receiver():
        yield from receive(StepApplied, "a")

    with pytest.raises(RemoteProtocolError, match="a sent RowsDigest where StepApplied was due"):
        run_together({"b": receiver(), "a": sender("b", RowsDigest(1, b""))})


def test_a_message_of_another_step_names_the_peer_and_both_steps():
    def receiver():
        yield from receive(StepApplied, "a", step=5)

    with pytest.raises(RemoteProtocolError, match="a sent StepApplied of step 4 where step 5 was due"):
        run_together({"b": receiver(), "a": sender("b", StepApplied(4))})


def test_gather_waits_for_each_peer_in_the_order_asked():
    def receiver():
        messages = yield from gather(StepApplied, ["a", "c"])
        return [(peer, message.step) for peer, message in messages.items()]

    together = run_together(
        {"b": receiver(), "c": sender("b", StepApplied(3)), "a": sender("b", StepApplied(1))},
    )
    assert together.results["b"] == [("a", 1), ("c", 3)]


def test_a_deadlock_says_who_waits_for_whom():
    def waits(frm):
        yield from receive(StepApplied, frm)

    with pytest.raises(DeadlockError, match="a waits for b, b waits for a"):
        run_together({"a": waits("b"), "b": waits("a")})


def test_sizes_are_kept_without_messages_and_states_where_these_would_fill_the_memory():
    def receiver():
        yield from receive(StepApplied, "a")
        yield from report(RoundDone(1, 1, b"a model", {"loss": 0.5}))

    together = run_together({"b": receiver(), "a": sender("b", StepApplied(1))}, keep_messages=False)
    assert [(sent.kind, sent.payload_bytes, sent.message) for sent in together.transcript] == [
        ("StepApplied", 24, None)
    ]
    assert together.reports["b"] == [RoundDone(1, 1, b"", {"loss": 0.5})]
