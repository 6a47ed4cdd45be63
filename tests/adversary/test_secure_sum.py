"""Who deviates in a secure sum: clients are refused by name and the rest is summed; aggregators get no help."""

import secrets

import msgspec
import numpy as np
import pytest
from sum_federation import (
    AGGREGATOR,
    SECONDS,
    Group,
    aggregator,
    changing,
    client,
    group,
    names,
    plain_sum,
    run,
    terms,
    vectors,
)

from crypto.pair_keys import fresh_private_key, public_key
from crypto.secret_sharing import SHARE_BYTES
from vfl.errors import RemoteProtocolError, SecureSumFailed
from vfl.flow import receive, run_together, send
from vfl.message import Message
from vfl.messages import MaskedReply, PairKey, PairKeys, SealedShares, SumTask, UnmaskShares, UnmaskTask
from vfl.protocols.secure_sum import sum_of
from vfl.reports import Refused
from vfl.secure_sum.client import Member
from vfl.secure_sum.terms import BOX_BYTES, DIGEST_BYTES, SumLog

SMALL_ORDER = (325606250916557431795983626356110631294008115727848805560023387167927233504).to_bytes(32, "little")
OTHER_KEY = public_key(fresh_private_key())
replace = msgspec.structs.replace


def refusals(together, party=AGGREGATOR):
    return [fact for fact in together.reports[party] if isinstance(fact, Refused)]


def only(kind, **changes):
    """Change this kind of message: each field by a function of its value."""
    return lambda message: (
        replace(message, **{name: change(getattr(message, name)) for name, change in changes.items()})
        if isinstance(message, kind)
        else message
    )


def first_changed(change):
    return lambda pairs: ((pairs[0][0], change(pairs[0][1])), *pairs[1:])


def flipped(content):
    return bytes([content[0] ^ 1]) + content[1:]


# -- a client that deviates: refused by name, and the sum of the others is exact


CHEATS = {
    "small order": (only(PairKey, masking=lambda _: SMALL_ORDER), "small order", 0),
    "zero key": (only(PairKey, sealing=lambda _: bytes(32)), "small order", 0),
    "short key": (only(PairKey, sealing=lambda key: key[:31]), "31 bytes", 0),
    "equal keys": (lambda m: replace(m, sealing=m.masking) if isinstance(m, PairKey) else m, "sent a key twice", 0),
    "box missing": (only(SealedShares, boxes=lambda boxes: boxes[1:]), "each of its peers", 1),
    "box for a stranger": (only(SealedShares, boxes=lambda b: (("c9", b[0][1]), *b[1:])), "each of its peers", 1),
    "box for itself": (only(SealedShares, boxes=lambda b: (*b, ("c1", b[0][1]))), "each of its peers", 1),
    "two boxes for one": (only(SealedShares, boxes=lambda b: (*b, b[0])), "two entries for c0", 1),
    "short box": (only(SealedShares, boxes=first_changed(lambda box: box[1:])), f"{BOX_BYTES} bytes", 1),
    "no digests": (only(SealedShares, digests=lambda _: b""), "digests of two shares", 1),
    "one word less": (only(MaskedReply, words=lambda words: words[:-2]), "98 bytes of masked words, and 100", 2),
    "one word more": (only(MaskedReply, words=lambda words: words + bytes(2)), "102 bytes of masked words", 2),
    "no words": (only(MaskedReply, words=lambda _: b""), "0 bytes of masked words", 2),
    "forged share": (only(UnmaskShares, self_masks=first_changed(flipped)), "that was not dealt", 3),
    "short share": (only(UnmaskShares, self_masks=first_changed(lambda s: s[:-1])), "that was not dealt", 3),
    "shares exchanged": (
        only(UnmaskShares, self_masks=lambda p: ((p[0][0], p[1][1]), (p[1][0], p[0][1]), *p[2:])),
        "that was not dealt",
        3,
    ),
    "share twice": (only(UnmaskShares, self_masks=lambda pairs: (*pairs, pairs[0])), "two entries for c1", 3),
    "share of a stranger": (only(UnmaskShares, self_masks=lambda p: (*p, ("c9", p[0][1]))), "not asked about", 3),
    "share of the other kind": (
        only(UnmaskShares, masking_keys=lambda _: (("c0", bytes(SHARE_BYTES)),)),
        "masking key of a client that it was not asked about",
        3,
    ),
    "wrong number": (lambda m: replace(m, sum=2), "owes PairKey of sum 1", 0),
    "wrong kind": (lambda m: MaskedReply(1, b"") if isinstance(m, SealedShares) else m, "owes SealedShares", 1),
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_what_no_honest_client_sends_is_refused_by_name_and_the_rest_is_summed_exactly(cheat):
    change, why, step = CHEATS[cheat]
    agreed, seen = terms(5), SumLog()
    given = vectors(agreed)
    together = run(agreed, given, change={"c1": change}, seen=seen)
    assert seen.faulty == {"c1"}
    (refused,) = refusals(together)
    assert refused.peer == "c1"
    assert refused.text.startswith("c1")
    assert why in refused.text
    expected = tuple(me for me in agreed.roster if me != "c1" or step == 3)
    assert together.results[AGGREGATOR].contributors == expected
    assert np.array_equal(together.results[AGGREGATOR].words, plain_sum(agreed, given, expected))


def recorded(together, sender, kind):
    return next(s.message for s in together.transcript if (s.sender, s.kind) == (sender, kind.kind()))


def test_shares_replayed_from_an_earlier_sum_are_refused_by_name():
    agreed = terms(5)
    given = vectors(agreed)
    old = recorded(run(agreed, given), "c1", UnmaskShares)
    together = run(
        agreed, given, change={"c1": lambda m: replace(old, sum=2) if isinstance(m, UnmaskShares) else m}, number=2
    )
    assert refusals(together) == [Refused("c1", "c1 sent a share of c1's self mask that was not dealt")]
    assert np.array_equal(together.results[AGGREGATOR].words, plain_sum(agreed, given, agreed.roster))


def test_boxes_replayed_from_an_earlier_sum_open_nowhere_and_the_sum_fails_naming_their_dealer():
    agreed = terms(7)
    given = vectors(agreed)
    old = recorded(run(agreed, given), "c1", SealedShares)
    with pytest.raises(SecureSumFailed, match="1 shares of c1's self mask came, and 4 are needed; c1 deviates"):
        run(agreed, given, change={"c1": only(SealedShares, boxes=lambda _: old.boxes)}, number=2)


def test_a_key_that_another_client_sent_is_refused():
    agreed = terms(5)
    given = vectors(agreed)
    copied: dict[str, Message] = {}

    def learn(message):
        copied.setdefault("key", message)
        return message

    def copy(message):
        return copied["key"] if isinstance(message, PairKey) else message

    together = run(agreed, given, change={"c0": learn, "c1": copy})
    assert refusals(together) == [Refused("c1", "c1 sent a key twice, or one that another client sent")]


def test_a_share_of_another_holder_is_not_accepted_as_ones_own():
    """Two holders exchange what they hold: each share is a true one, at the wrong place."""
    agreed = terms(6)
    given = vectors(agreed)
    copied: dict[str, Message] = {}

    def learn(message):
        copied[message.kind()] = message
        return message

    def copy(message):
        return copied["UnmaskShares"] if isinstance(message, UnmaskShares) else message

    together = run(agreed, given, change={"c0": learn, "c1": copy})
    assert [(r.peer, "not dealt" in r.text) for r in refusals(together)] == [("c1", True)]
    assert np.array_equal(together.results[AGGREGATOR].words, plain_sum(agreed, given, agreed.roster))


def test_one_box_that_does_not_open_costs_one_share_and_not_the_sum():
    agreed = terms(5)
    given = vectors(agreed)
    together = run(agreed, given, change={"c1": only(SealedShares, boxes=first_changed(flipped))})
    assert [r.peer for r in refusals(together, "c0")] == ["c1"]
    assert "the box does not open" in refusals(together, "c0")[0].text
    assert not refusals(together)
    assert np.array_equal(together.results[AGGREGATOR].words, plain_sum(agreed, given, agreed.roster))


def spoilt(digests):
    return bytes(byte ^ 1 for byte in digests)


@pytest.mark.parametrize("clients", [3, 5, 8])
def test_a_dealer_that_announces_other_shares_than_it_deals_is_named_and_no_honest_holder(clients, monkeypatch):
    """By holders that do not look, true shares would be given, taken for forgeries, and all of them barred."""
    agreed = terms(clients)
    own = slice(2 * DIGEST_BYTES, 4 * DIGEST_BYTES)
    attack = {"c1": only(SealedShares, digests=lambda d: spoilt(d[: own.start]) + d[own] + spoilt(d[own.stop :]))}
    seen = SumLog()
    with pytest.raises(SecureSumFailed, match=r"c1's self mask came, and . are needed; c1 deviates"):
        run(agreed, vectors(agreed), change=attack, seen=seen)
    assert seen.faulty == {"c1"}

    monkeypatch.setattr(Member, "_announced", lambda *_: True)
    unprotected = SumLog()
    with pytest.raises(SecureSumFailed, match="1 clients sent UnmaskShares"):
        run(agreed, vectors(agreed), change=attack, seen=unprotected)
    assert unprotected.faulty == set(agreed.roster) - {"c1"}


def test_a_share_that_was_announced_wrongly_to_one_holder_is_given_by_the_others():
    agreed = terms(5)
    given = vectors(agreed)
    attack = only(SealedShares, digests=lambda all_: spoilt(all_[:DIGEST_BYTES]) + all_[DIGEST_BYTES:])
    together = run(agreed, given, change={"c1": attack})
    assert [(r.peer, "not those it announced" in r.text) for r in refusals(together, "c0")] == [("c1", True)]
    assert not refusals(together)
    assert np.array_equal(together.results[AGGREGATOR].words, plain_sum(agreed, given, agreed.roster))


@pytest.mark.parametrize(
    ("withheld", "faulty", "named"),
    [("c0", set(), "c0 deviates, or those who gave no share: c2"), ("c0 c1", {"c2"}, "c2 deviates")],
    ids=["one dealer's", "everybody's"],
)
def test_a_holder_that_keeps_shares_back_bars_no_honest_dealer(withheld, faulty, named):
    """Three clients, whose sum needs every share: one word stands against another, and only the third decides."""
    agreed, seen = terms(3), SumLog()
    keeping = only(UnmaskShares, self_masks=lambda pairs: tuple(pair for pair in pairs if pair[0] not in withheld))
    with pytest.raises(SecureSumFailed, match=named):
        run(agreed, vectors(agreed), change={"c2": keeping}, seen=seen)
    assert seen.faulty == faulty


def test_a_client_that_deals_shares_of_a_wrong_key_and_drops_out_is_named():
    agreed = terms(5)
    given = vectors(agreed)

    class Liar(Member):
        def deal(self, message):
            own, self._masking = self._masking, fresh_private_key()
            dealt = super().deal(message)
            self._masking = own
            return dealt

    def liar():
        task = yield from receive(SumTask, AGGREGATOR)
        member = Liar(agreed, task, "c1", AGGREGATOR)
        yield from send(AGGREGATOR, member.key())
        yield from send(AGGREGATOR, member.deal((yield from receive(PairKeys, AGGREGATOR))))

    roles = {me: liar() if me == "c1" else client(agreed, me, given[me]) for me in agreed.roster}
    seen = SumLog()
    with pytest.raises(SecureSumFailed, match="c1 dropped out, and had dealt shares of another key than its own"):
        run_together({AGGREGATOR: aggregator(agreed, 1, seen), **roles})
    assert seen.faulty == {"c1"}


def test_a_client_that_floods_is_left_out():
    agreed = terms(4)
    given = vectors(agreed)

    def flood():
        task = yield from receive(SumTask, AGGREGATOR)
        for _ in range(64):
            yield from send(AGGREGATOR, PairKey(task.sum - 1, b"", b""))

    roles = {me: flood() if me == "c0" else client(agreed, me, given[me]) for me in agreed.roster}
    together = run_together({AGGREGATOR: aggregator(agreed), **roles})
    assert refusals(together)[-1] == Refused("c0", "c0 sent 64 messages, and none is the PairKey that is due")
    assert together.results[AGGREGATOR].contributors == agreed.roster[1:]


# -- an aggregator that deviates: what a client does not do for it


LISTS = {
    "own key changed": (lambda keys: (("c0", OTHER_KEY, *keys[0][2:]), *keys[1:]), "as this client's that it did not"),
    "itself left out": (lambda keys: keys[1:], "as this client's that it did not"),
    "a client twice": (lambda keys: (*keys, keys[1]), "a client twice"),
    "a stranger": (lambda keys: (*keys[1:], ("x", OTHER_KEY, *keys[0][2:])), "outside the roster"),
    "too few": (lambda keys: keys[:2], "lists 2 clients, which do not go with a threshold of 3"),
    "small order": (
        lambda keys: (*keys[:4], ("c4", SMALL_ORDER, *keys[4][2:])),
        "a key of c4 cannot be used: the key is a point of small order",
    ),
    "equal keys": (lambda keys: (*keys[:4], ("c4", keys[3][1], *keys[4][2:])), "c4 and c3 have the same key"),
    "short key": (
        lambda keys: (*keys[:4], ("c4", b"short", *keys[4][2:])),
        "a key of c4 cannot be used: the key has 5 bytes",
    ),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_client_deals_no_shares_on_a_list_no_honest_aggregator_sends(name):
    change, why = LISTS[name]
    given = group()
    with pytest.raises(RemoteProtocolError, match=why) as caught:
        given.members["c0"].deal(replace(given.keys, keys=change(given.keys.keys)))
    assert str(caught.value).startswith("hub, in secure sum 1, ")


def test_a_client_deals_no_shares_where_the_threshold_is_no_majority():
    agreed = terms(6, threshold=4)
    small = Group(agreed, vectors(agreed)).keys
    lax = Member(terms(6, threshold=3), SumTask(1, agreed.round, agreed.purpose), "c0", AGGREGATOR)
    keys = (("c0", *lax._public, b""), *small.keys[1:])
    with pytest.raises(RemoteProtocolError, match="lists 6 clients, which do not go with a threshold of 3"):
        lax.deal(PairKeys(1, keys))


BOXES = {
    "too few": (lambda boxes: boxes[:1], "goes on with 2 clients, and 3 are agreed"),
    "of itself": (lambda boxes: (*boxes, ("c0", boxes[0][1])), "no peer in this sum"),
    "of a stranger": (lambda boxes: (*boxes, ("x", boxes[0][1])), "no peer in this sum"),
    "one twice": (lambda boxes: (*boxes, boxes[0]), "two entries for c1"),
    "without a digest": (lambda boxes: boxes[1:], "digests of the two shares in each box"),
    "exchanged": (
        lambda b: tuple((name, box) for (name, _), (_, box) in zip(b, (*b[1:], b[0]), strict=True)),
        "4 boxes of shares of which 0 open",
    ),
    "forged": (
        lambda b: tuple((name, secrets.token_bytes(BOX_BYTES)) for name, _ in b),
        "4 boxes of shares of which 0 open",
    ),
}


@pytest.mark.parametrize("name", BOXES)
def test_a_client_masks_nothing_on_boxes_no_honest_aggregator_passes_on(name):
    change, why = BOXES[name]
    given = group().deal()
    sent = given.side.boxes_for("c0")
    with pytest.raises(RemoteProtocolError, match=why):
        given.members["c0"].mask(replace(sent, boxes=change(sent.boxes)), given.given["c0"])


ARRIVED = {
    "too few": (("c0", "c1"), "would open a sum over 2 clients, and 3 are agreed"),
    "without the one that is asked": (("c1", "c2", "c3", "c4"), "this client's words did not come"),
    "a stranger": (("c0", "c1", "c2", "x"), "no part in this sum"),
    "one twice": (("c0", "c1", "c1"), "names a client twice"),
    "nobody": ((), "this client's words did not come"),
}


@pytest.mark.parametrize("name", ARRIVED)
def test_a_client_gives_no_shares_for_a_sum_no_honest_aggregator_opens(name):
    arrived, why = ARRIVED[name]
    with pytest.raises(RemoteProtocolError, match=why):
        group().deal().mask().members["c0"].unmask(UnmaskTask(1, arrived))


def test_a_client_gives_shares_once_and_never_both_kinds_for_one_client():
    member = group().deal().mask().members["c0"]
    shares = member.unmask(UnmaskTask(1, ("c0", "c1", "c2")))
    assert [name for name, _ in shares.self_masks] == ["c0", "c1", "c2"]
    assert [name for name, _ in shares.masking_keys] == ["c3", "c4"]
    with pytest.raises(RemoteProtocolError, match="asks for shares a second time"):
        member.unmask(UnmaskTask(1, ("c0", "c3", "c4")))


def test_who_is_shown_another_list_opens_no_box_of_the_others():
    """Equivocation: c0 sees c4 under another key than the rest does."""
    given = group()
    other = replace(given.keys, keys=(*given.keys.keys[:4], ("c4", OTHER_KEY, *given.keys.keys[4][2:])))
    dealt = {me: member.deal(other if me == "c0" else given.keys) for me, member in given.members.items()}
    boxes = tuple((me, dict(sent.boxes)["c0"]) for me, sent in dealt.items() if me != "c0")
    digests = b"".join(dealt[me].digests[: 2 * DIGEST_BYTES] for me, _ in boxes)
    with pytest.raises(RemoteProtocolError, match="of which 0 open"):
        given.members["c0"].mask(SealedShares(1, boxes, digests), given.given["c0"])


def test_who_is_asked_with_other_numbers_opens_no_box_of_the_others():
    """A question with other public numbers for one client is another sum: nothing of it can be opened."""
    agreed = terms(5)
    given = vectors(agreed)

    first = iter([(0.5,), (), (), (), ()])
    asking = changing(sum_of(agreed, 1, agreed.roster, SECONDS), only(SumTask, numbers=lambda _: next(first)))
    roles = {me: client(agreed, me, given[me]) for me in agreed.roster}
    with pytest.raises(RemoteProtocolError, match="4 boxes of shares of which 0 open"):
        run_together({AGGREGATOR: asking, **roles})


@pytest.mark.parametrize("clients", [5, 6, 7])
def test_two_stories_about_who_came_never_bring_both_kinds_of_share_of_one_client(clients):
    """Every way to tell some that the victim dropped out and the others that it came: one kind stays too few."""
    victim = "c0"
    others = names(clients)[1:]
    for size in range(clients):
        given = group(clients).deal().mask()
        told_gone, told_came = others[:size], others[size:]
        answers = [given.members[me].unmask(UnmaskTask(1, others)) for me in told_gone]
        answers += [given.members[me].unmask(UnmaskTask(1, names(clients))) for me in (victim, *told_came)]
        keys = sum(victim in dict(answer.masking_keys) for answer in answers)
        seeds = sum(victim in dict(answer.self_masks) for answer in answers)
        assert keys + seeds == clients
        assert min(keys, seeds) < given.agreed.threshold
