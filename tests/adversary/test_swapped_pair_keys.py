"""An aggregator that puts keys of its own in the place of the clients' reads a vector, unless clients sign their keys.

The attack is run first against a client whose server checks nothing, and succeeds.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from identities import identity_of
from rounds_federation import spec
from sum_federation import AGGREGATOR, Group, Vector, terms, vectors

from parties.jobs.relay import Relay
from parties.trust.handed_on import vouch
from parties.trust.identity import Identity
from parties.trust.rotation import SignedRotation
from vfl.errors import RemoteProtocolError
from vfl.message import encode
from vfl.messages import PairKey, PairKeys

JOB, OTHER_JOB = "0123456789abcdef-01234567", "fedcba9876543210-76543210"
AGREED = terms(5)
VICTIM, *OTHERS = AGREED.roster
SPEC = spec(5).with_identity_keys({party: identity_of(party).key.raw for party in (AGGREGATOR, *AGREED.roster)})


def relay_of(party: str, job: str = JOB) -> Relay:
    """Of the party's server."""
    return Relay(job, SPEC, identity_of(party))


def own(party: str, number: int = 1, job: str = JOB) -> PairKey:
    """What the real client sends in this sum: other keys than the aggregator's."""
    member = Group(AGREED, vectors(AGREED), number).members[party]
    body = relay_of(party, job).sign("PairKey", encode(member.key()))
    return decoded(body)


def decoded(body: Any) -> PairKey:
    from vfl.message import decode

    message = decode("a client", "PairKey", body)
    assert isinstance(message, PairKey)
    return message


class SwappingAggregator:
    """It plays all clients but one, whose peers they seem to be."""

    def __init__(self, given: Vector) -> None:
        zero = np.zeros(AGREED.words, np.uint64)
        self.played = Group(AGREED, {me: given if me == VICTIM else zero for me in AGREED.roster})

    def keys(self, signature_of: Callable[[PairKey, str], bytes]) -> PairKeys:
        """As the victim is shown them; `signature_of` makes what shall pass for the signature of another client."""
        signed = []
        for member, masking, sealing, _ in self.played.keys.keys:
            key = PairKey(1, masking, sealing)
            signature = decoded(relay_of(VICTIM).sign("PairKey", encode(key))).signature
            signed.append((member, masking, sealing, signature if member == VICTIM else signature_of(key, member)))
        return PairKeys(1, tuple(signed))

    def reads(self) -> Vector:
        """The victim's vector, once the victim has answered all that it was asked."""
        side, members = self.played.deal().mask().side, self.played.members
        for me in AGREED.roster:
            side.take_words(me, self.played.masked[me])
        for me in AGREED.roster:
            side.take_shares(me, members[me].unmask(side.arrived()))
        return side.opened().words


FORGED: Mapping[str, Callable[[PairKey, str], bytes]] = {
    "nothing": lambda _key, _client: b"",
    "noise": lambda _key, _client: bytes(70),
    "the signature of the client under its own keys": lambda _key, client: own(client).signature,
    "a signature of the aggregator": lambda key, client: vouch(identity_of(AGGREGATOR), (), JOB, key.own_word(client)),
    "a signature of the victim": lambda key, _client: decoded(relay_of(VICTIM).sign("PairKey", encode(key))).signature,
    "a key of its own that nobody has named": lambda key, client: vouch(
        Identity.generate(client), (), JOB, key.own_word(client)
    ),
    "a key of its own that the client's seems to have been followed by": lambda key, client: vouch(
        Identity(client, identity_of(AGGREGATOR).private), [followed_by_aggregator(client)], JOB, key.own_word(client)
    ),
}


def followed_by_aggregator(client: str) -> SignedRotation:
    """As far as the aggregator can make it: the client's key has signed nothing."""
    aggregator = Identity(client, identity_of(AGGREGATOR).private)
    return SignedRotation.of(aggregator, Identity.generate(client), 1)


@pytest.mark.parametrize("forged", FORGED)
def test_an_aggregator_that_swaps_the_keys_of_all_peers_reads_a_vector_unless_signatures_are_checked(
    forged: str,
) -> None:
    given = vectors(AGREED)[VICTIM]
    attack = SwappingAggregator(given)
    shown = attack.keys(FORGED[forged])
    assert shown.keys[0] != attack.played.keys.keys[0]
    assert np.array_equal(attack.reads(), given)  # nobody has looked at a signature
    with pytest.raises(RemoteProtocolError, match=f"{AGGREGATOR} brings a PairKey of 'c1' that") as refused:
        relay_of(VICTIM).check(AGGREGATOR, "PairKeys", encode(shown))
    assert "may have put its own in that place" in refused.value.fix


def honest(number: int = 1, job: str = JOB) -> PairKeys:
    """The list as the clients have signed it."""
    keys = {client: own(client, number, job) for client in AGREED.roster}
    return PairKeys(number, tuple((client, key.masking, key.sealing, key.signature) for client, key in keys.items()))


def test_what_every_client_has_signed_is_believed() -> None:
    relay_of(VICTIM).check(AGGREGATOR, "PairKeys", encode(honest()))


def test_one_swapped_key_among_honest_ones_is_found_and_its_client_named() -> None:
    keys = list(honest().keys)
    client, masking, _, signature = keys[3]
    keys[3] = (client, masking, keys[2][2], signature)
    with pytest.raises(RemoteProtocolError, match="of 'c3'"):
        relay_of(VICTIM).check(AGGREGATOR, "PairKeys", encode(PairKeys(1, tuple(keys))))


def test_keys_that_a_client_signed_for_another_sum_or_another_job_are_refused() -> None:
    for old in (honest(number=2), honest(job=OTHER_JOB)):
        replayed = PairKeys(1, old.keys)
        with pytest.raises(RemoteProtocolError, match="has not signed"):
            relay_of(VICTIM).check(AGGREGATOR, "PairKeys", encode(replayed))


def test_a_client_outside_the_specification_is_refused() -> None:
    stranger = own("c1")
    listed = PairKeys(1, (("mallory", stranger.masking, stranger.sealing, stranger.signature),))
    with pytest.raises(RemoteProtocolError, match="of 'mallory'"):
        relay_of(VICTIM).check(AGGREGATOR, "PairKeys", encode(listed))


def test_a_client_that_does_not_sign_its_key_is_refused_by_the_aggregator_and_harms_nobody_else() -> None:
    key = own("c1")
    relay_of(AGGREGATOR).check("c1", "PairKey", encode(key))
    for sender, wrong in (("c2", key), ("c1", own("c2")), ("c1", key.vouched(b""))):
        with pytest.raises(RemoteProtocolError, match=f"^{sender} brings a PairKey"):
            relay_of(AGGREGATOR).check(sender, "PairKey", encode(wrong))


def test_a_client_that_has_rotated_its_key_during_the_job_is_believed_by_the_key_that_followed() -> None:
    new = Identity.generate("c1")
    led, listed = SignedRotation.of(identity_of("c1"), new, 1), honest()
    of_c1 = PairKey(1, *listed.keys[1][1:3])
    signed = vouch(new, [led], JOB, of_c1.own_word("c1"))
    keys = (listed.keys[0], (*listed.keys[1][:3], signed), *listed.keys[2:])
    relay_of(VICTIM).check(AGGREGATOR, "PairKeys", encode(PairKeys(1, keys)))
    without = vouch(new, (), JOB, of_c1.own_word("c1"))
    keys = (listed.keys[0], (*listed.keys[1][:3], without), *listed.keys[2:])
    with pytest.raises(RemoteProtocolError, match="of 'c1'"):
        relay_of(VICTIM).check(AGGREGATOR, "PairKeys", encode(PairKeys(1, keys)))
