"""What coordinator and participant ask of the link to one peer alone, done."""

from collections.abc import Mapping

from parties.jobs import actions
from parties.jobs.actions import Action
from parties.wire.link import Link
from parties.wire.peer_state import PeerState
from vfl.spec.sections import PartyId


def done_by_link(links: Mapping[PartyId, Link], action: Action) -> bool:
    """False for an action that takes more than a link."""
    match action:
        case actions.Send(peer, word, attempt):
            links[peer].say(word, attempt)
        case actions.SendUntilAcknowledged(peer, word, attempt):
            links[peer].send_until_acknowledged(word, attempt)
        case actions.Retransmit(peer):
            links[peer].retransmit()
        case actions.Watch(peer):
            links[peer].watch()
        case actions.AwaitOperator(peer):
            links[peer].state = PeerState.WAITING
        case actions.BeginPeer(peer, begin):
            links[peer].begin(begin)
        case actions.MarkFinished(peer):
            links[peer].finished = True
        case actions.EndAttempt(peer, state):
            links[peer].leave(state)
        case _:
            return False
    return True
