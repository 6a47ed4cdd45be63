"""A secure sum equals the plain integer sum exactly, whoever drops out at whatever step, or ends in a named error."""

import hashlib

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rounds_federation import spec
from sum_federation import AGGREGATOR, SECONDS, client, names, plain_sum, run, terms, vanishing, vectors

from vfl.codecs.grid import from_sum, to_codes, word_bits
from vfl.errors import RemoteProtocolError, SecureSumFailed
from vfl.flow import Send, receive, report, run_together, send
from vfl.kinds import allowed
from vfl.messages import (
    ClientReady,
    MaskedReply,
    PairKey,
    PairKeys,
    Published,
    RoundReply,
    SealedShares,
    SumTask,
    UnmaskTask,
)
from vfl.protocols.secure_sum import contribute, sum_of
from vfl.reports import Refused
from vfl.routes import ROUTES, routes_of_rounds
from vfl.secure_sum.terms import SumLog, SumResult, SumTerms, majority

STEPS = ["PairKey", "SealedShares", "MaskedReply", "UnmaskShares"]


def refusals(together, party=AGGREGATOR):
    return [fact for fact in together.reports[party] if isinstance(fact, Refused)]


def sent_by(together, sender, kind):
    return [sent.message for sent in together.transcript if (sent.sender, sent.kind) == (sender, kind)]


# -- exact


@pytest.mark.parametrize("word_bits", range(8, 65, 8))
def test_the_sum_is_the_plain_sum_in_words_of_every_width(word_bits):
    agreed = terms(4, 77, word_bits)
    given_words = vectors(agreed)
    result = run(agreed, given_words).results[AGGREGATOR]
    assert result.contributors == agreed.roster
    assert result.words.dtype == np.uint64
    assert np.array_equal(result.words, plain_sum(agreed, given_words, agreed.roster))


@pytest.mark.parametrize("clients", [3, 4, 21, 30])
def test_the_sum_is_the_plain_sum_for_three_parties_and_for_many(clients):
    agreed = terms(clients)
    given_words = vectors(agreed)
    together = run(agreed, given_words)
    assert np.array_equal(together.results[AGGREGATOR].words, plain_sum(agreed, given_words, agreed.roster))
    assert not refusals(together)
    assert [sent.kind for sent in together.transcript if sent.sender == "c0"] == STEPS


def test_a_single_word_and_words_beyond_two_to_the_w_are_taken_modulo():
    agreed = terms(3, 1, 8)
    given_words = {me: np.array([1000 + number], np.uint64) for number, me in enumerate(agreed.roster)}
    assert run(agreed, given_words).results[AGGREGATOR].words.tolist() == [3003 % 256]


@pytest.mark.parametrize("step", range(4), ids=STEPS)
@pytest.mark.parametrize("lost", [1, 10])
def test_with_one_lost_client_or_as_many_as_may_be_the_rest_is_summed_exactly(step, lost):
    """21 clients, threshold 11: up to 10 may go before they send the message of this step."""
    agreed = terms(21)
    given_words, gone = vectors(agreed), agreed.roster[3 : 3 + lost]
    result = run(agreed, given_words, vanish=dict.fromkeys(gone, step)).results[AGGREGATOR]
    stayed = tuple(me for me in agreed.roster if me not in gone or step == 3)
    assert result.contributors == stayed
    assert np.array_equal(result.words, plain_sum(agreed, given_words, stayed))


@pytest.mark.parametrize("step", range(4), ids=STEPS)
def test_with_one_more_lost_the_sum_fails_by_name(step):
    agreed = terms(21)
    with pytest.raises(SecureSumFailed, match=rf"updates, round 3\): 10 clients sent {STEPS[step]}, and 11 are needed"):
        run(agreed, vectors(agreed), vanish=dict.fromkeys(agreed.roster[:11], step))


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 4), min_size=3, max_size=12), st.sampled_from([8, 24, 32]), st.integers(0, 1000))
def test_whoever_goes_at_whatever_step_the_sum_is_exact_or_named_as_failed(steps, word_bits, seed):
    agreed = terms(len(steps), 9, word_bits)
    given_words, vanish = vectors(agreed, seed), dict(zip(agreed.roster, steps, strict=True))
    if sum(step == 4 for step in steps) < agreed.threshold:
        with pytest.raises(SecureSumFailed, match=f"{agreed.threshold} are needed"):
            run(agreed, given_words, vanish=vanish)
    else:
        result = run(agreed, given_words, vanish=vanish).results[AGGREGATOR]
        assert result.contributors == tuple(me for me in agreed.roster if vanish[me] >= 3)
        assert np.array_equal(result.words, plain_sum(agreed, given_words, result.contributors))


def test_a_higher_threshold_is_kept():
    agreed = terms(7, threshold=6)
    given_words = vectors(agreed)
    assert len(run(agreed, given_words, vanish={"c0": 2}).results[AGGREGATOR].contributors) == 6
    with pytest.raises(SecureSumFailed):
        run(agreed, given_words, vanish={"c0": 2, "c1": 2})


def test_codes_of_the_grid_are_summed_exactly():
    clients, bits, clip, shared = 5, 6, 2.0, hashlib.sha256(b"round 1").digest()
    updates = np.random.default_rng(3).normal(0, 0.1, (clients, 200)).astype(np.float32)
    codes = {
        me: to_codes(update, clip, bits, shared, me.encode()).astype(np.uint64)
        for me, update in zip(names(clients), updates, strict=True)
    }
    agreed = terms(clients, len(codes["c0"]), word_bits(bits, clients))
    words = run(agreed, codes).results[AGGREGATOR].words
    assert np.array_equal(words, np.sum(list(codes.values()), axis=0))
    decoded = from_sum(words, clients, clip, bits, shared)
    error = np.linalg.norm(decoded - updates.sum(axis=0)) / np.linalg.norm(updates.sum(axis=0))
    assert error < 0.1


# -- one sum after another


def aggregator_of_sums(agreed, sums, seen=None):
    results: list[SumResult | SecureSumFailed] = []
    for number in range(1, sums + 1):
        try:
            results.append((yield from sum_of(agreed, number, agreed.roster, SECONDS, seen)))
        except SecureSumFailed as error:
            results.append(error)
    return results


def test_every_key_seed_share_and_mask_is_fresh_for_each_sum():
    agreed = terms(4)
    given_words = vectors(agreed)
    together = run_together(
        {AGGREGATOR: aggregator_of_sums(agreed, 2)}
        | {me: client(agreed, me, given_words[me], 2) for me in agreed.roster}
    )
    first, second = together.results[AGGREGATOR]
    assert np.array_equal(first.words, second.words)
    for me in agreed.roster:
        for kind in STEPS:
            one, other = sent_by(together, me, kind)
            values = [msgspec.structs.asdict(message) for message in (one, other)]
            blobs = [set(pieces(value)) for value in values]
            assert not blobs[0] & blobs[1], kind


def pieces(fields):
    """Every run of 8 bytes in every bytes field."""
    for value in fields.values():
        for part in value if isinstance(value, tuple) else [("", value)]:
            for content in part[1:] if isinstance(part, tuple) else []:
                if isinstance(content, bytes):
                    yield from (content[at : at + 8] for at in range(len(content) - 7))


def test_a_sum_that_failed_can_be_taken_again_with_the_clients_that_wait():
    """Two of five go at the last step of sum 1; the rest hear of sum 2 instead of an end, and give to it."""
    agreed = terms(5, threshold=4)
    given_words = vectors(agreed)

    def twice(me):
        over = yield from client(agreed, me, given_words[me])
        task = over if isinstance(over, SumTask) else (yield from receive(SumTask, AGGREGATOR))
        return (yield from contribute(agreed, task, given_words[me], me, AGGREGATOR))

    def comes_back(me):
        yield from vanishing(client(agreed, me, given_words[me]), 2)
        over = yield from receive(SealedShares, AGGREGATOR)
        assert over.sum == 1
        return (yield from client(agreed, me, given_words[me]))

    roles = {me: comes_back(me) if me in {"c0", "c1"} else twice(me) for me in agreed.roster}
    failed, result = run_together({AGGREGATOR: aggregator_of_sums(agreed, 2), **roles}).results[AGGREGATOR]
    assert isinstance(failed, SecureSumFailed)
    assert np.array_equal(result.words, plain_sum(agreed, given_words, agreed.roster))


def test_a_late_message_of_an_earlier_sum_is_dropped_by_name_and_counts_for_nothing():
    agreed = terms(4)
    given_words = vectors(agreed)

    def late(me):
        task = yield from receive(SumTask, AGGREGATOR)
        second = yield from receive(SumTask, AGGREGATOR)
        yield from send(AGGREGATOR, PairKey(task.sum, b"1" * 32, b"2" * 32))
        return (yield from contribute(agreed, second, given_words[me], me, AGGREGATOR))

    roles = {me: late(me) if me == "c2" else client(agreed, me, given_words[me], 2) for me in agreed.roster}
    together = run_together({AGGREGATOR: aggregator_of_sums(agreed, 2), **roles})
    first, second = together.results[AGGREGATOR]
    assert first.contributors == ("c0", "c1", "c3")
    assert second.contributors == agreed.roster
    assert np.array_equal(second.words, plain_sum(agreed, given_words, agreed.roster))
    assert refusals(together) == [Refused("c2", "c2's PairKey of sum 1 came in sum 2 and is dropped")]


def test_a_client_left_behind_hands_back_what_it_was_told_instead():
    agreed = terms(3)
    published = Published(1, b"p", b"d")

    def aggregator():
        yield from send("c0", SumTask(1, agreed.round, agreed.purpose))
        yield from receive(PairKey, "c0")
        yield from send("c0", published)

    assert (
        run_together({AGGREGATOR: aggregator(), "c0": client(agreed, "c0", vectors(agreed)["c0"])}).results["c0"]
        == published
    )


def test_who_left_and_who_came_back_is_noted_beside_the_sum():
    agreed, seen = terms(5), SumLog()
    given_words = vectors(agreed)

    def back(me):
        yield from vanishing(client(agreed, me, given_words[me]), 1)
        yield from send(AGGREGATOR, ClientReady(b"digest"))

    roles = {me: back(me) if me == "c1" else client(agreed, me, given_words[me]) for me in agreed.roster}
    together = run_together({AGGREGATOR: sum_of(agreed, 1, agreed.roster, SECONDS, seen), **roles})
    assert seen.back == {"c1": ClientReady(b"digest")}
    assert not seen.left
    assert seen.payload_bytes == sum(sent.payload_bytes for sent in together.transcript if sent.receiver == AGGREGATOR)
    assert "c1" not in together.results[AGGREGATOR].contributors


def test_a_client_the_job_goes_on_without_is_noted_as_gone():
    agreed, seen = terms(4), SumLog()
    flow = sum_of(agreed, 1, agreed.roster, SECONDS, seen)
    effect = next(flow)
    while isinstance(effect, Send):
        effect = flow.send(None)
    flow.send(None)  # the first client's: nothing, before the time was up
    assert seen.left == {"c0"}


# -- what is agreed


@pytest.mark.parametrize(
    "changes",
    [{"words": 0}, {"threshold": 2}, {"word_bits": 12}, {"word_bits": 72}],
    ids=["no-words", "two-contributors", "odd-width", "wide"],
)
def test_terms_that_cannot_be_are_refused(changes):
    fields = {"words": 5, "threshold": 3, "word_bits": 16} | changes
    with pytest.raises(ValueError, match=r"secure sum needs|multiple of 8"):
        SumTerms(b"job", 1, "updates", names(3), **fields)


def test_a_threshold_that_is_no_majority_is_refused():
    with pytest.raises(ValueError, match="3 is not more than half of 6"):
        next(sum_of(terms(6, threshold=3), 1, names(6), SECONDS))


@pytest.mark.parametrize(("cohort", "threshold"), [(3, 3), (4, 3), (5, 3), (6, 4), (20, 11), (21, 11), (100, 51)])
def test_the_majority_is_more_than_half_and_at_least_three(cohort, threshold):
    assert majority(cohort) == threshold


def test_words_of_another_number_than_agreed_are_a_fault_of_ones_own():
    agreed = terms(3)
    given_words = vectors(agreed) | {"c1": np.zeros(agreed.words + 1, np.uint64)}
    with pytest.raises(ValueError, match=r"shape \(51,\), and 50"):
        run(agreed, given_words)


@pytest.mark.parametrize(
    "task",
    [
        SumTask(1, 4, "updates"),
        SumTask(1, 3, "class counts"),
        SumTask(-1, 3, "updates"),
        SumTask(1 << 63, 3, "updates"),
    ],
    ids=["round", "purpose", "negative", "huge"],
)
def test_a_task_for_another_sum_than_the_terms_say_is_the_aggregators_fault(task):
    agreed = terms(3)
    with pytest.raises(RemoteProtocolError, match=r"hub, in secure sum .* asks for"):
        next(contribute(agreed, task, vectors(agreed)["c0"], "c0", AGGREGATOR))


@pytest.mark.parametrize(
    "messages",
    [
        [SealedShares(1, ())],
        [PairKeys(2, ())],
        [UnmaskTask(1, ("c0", "c1", "c2"))],
    ],
    ids=["out-of-turn", "another-sum", "unmask-first"],
)
def test_messages_of_a_sum_out_of_turn_are_the_aggregators_fault(messages):
    agreed = terms(3)

    def aggregator():
        yield from send("c0", SumTask(1, agreed.round, agreed.purpose))
        for message in messages:
            yield from send("c0", message)
        yield from report(Refused("", ""))

    with pytest.raises(RemoteProtocolError, match="where PairKeys of sum 1 was due"):
        run_together({AGGREGATOR: aggregator(), "c0": client(agreed, "c0", vectors(agreed)["c0"])})


def test_only_jobs_with_secure_sums_may_send_their_messages_and_they_send_no_single_reply():
    plain = spec()
    secure = msgspec.structs.replace(plain)
    msgspec.structs.force_setattr(secure, "rounds", msgspec.structs.replace(plain.rounds, secure_sum=True))
    own = {route.message for route in ROUTES["secure_sum"]}
    assert not own & {route.message for route in routes_of_rounds(plain)}
    assert own <= {route.message for route in routes_of_rounds(secure)}
    assert allowed(plain, "c0", "hub", RoundReply.kind())
    assert not allowed(secure, "c0", "hub", RoundReply.kind())
    assert allowed(secure, "c0", "hub", MaskedReply.kind())
    assert not allowed(secure, "c0", "c1", MaskedReply.kind())
