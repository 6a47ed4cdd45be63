"""The identity keys that a specification names, by which parties of a job believe what its coordinator hands on.

The coordinator fills in those that it has pinned; every party signs them with the specification. A party that has
pinned one of them too refuses another key in its place. Of a party that it does not know it can only ask its operator
(docs/protocols/secure_sum.md).
"""

from parties.peers import Peers
from parties.trust.errors import IdentityKeyDiffers
from vfl.errors import ImpossibleJob
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId


def filled_in(spec: JobSpec, peers: Peers) -> JobSpec:
    """As this party proposes it; it trusts every other party of it. Raises IdentityKeyDiffers."""
    if not spec.hands_on:
        return spec
    own, others = peers.own_keys, spec.peers_of(peers.own_keys.name)
    keys = {own.name: own.for_peers(others).key.raw} | {other: peers.get(other).key for other in others}
    for party, named in spec.identity_keys.items():
        if named != keys[party]:
            raise _differs(party)
    return spec.with_identity_keys(keys)


def check_keys(spec: JobSpec, peers: Peers, at: float) -> tuple[PartyId, ...]:
    """Of which parties this one has pinned no key. Raises ImpossibleJob, IdentityKeyDiffers.

    `at` is when the job began (Unix seconds): keys that counted then count for it.
    """
    if spec.hands_on and set(spec.identity_keys) != set(spec.parties):
        raise ImpossibleJob("the proposal does not name the identity key of every party")
    strangers = []
    for party, named in spec.identity_keys.items():
        is_own = party == peers.own_keys.name
        keys = peers.own_keys.keys(at) if is_own else peers.keys_of(party, at)
        if keys and named not in {key.raw for key in keys}:
            raise _differs(party)
        if not keys:
            strangers.append(party)
    return tuple(strangers)


def _differs(party: PartyId) -> IdentityKeyDiffers:
    return IdentityKeyDiffers(f"the specification names another identity key of {party} than is known here")
