"""What was said about a job before its run, read again by a server that was away meanwhile."""

from collections.abc import Iterable, Mapping

from parties.jobs.standing import Words
from parties.storage.negotiated import Negotiated
from parties.wire.control import NEGOTIATION, Control, decode_control
from parties.wire.door import UNCOUNTED
from parties.wire.envelopes import Envelope, read_post
from vfl.spec.sections import PartyId


class Negotiation:
    """Raises EnvelopeRefused, RemoteProtocolError for what another release has stored."""

    def __init__(self, stored: Iterable[Negotiated], me: PartyId, peers: Iterable[PartyId]) -> None:
        self._said: dict[PartyId, list[Envelope]] = {peer: [] for peer in peers}
        self._heard: dict[PartyId, list[Envelope]] = {peer: [] for peer in peers}
        for each in stored:
            of, receiver = (self._said, each.peer) if each.direction == "sent" else (self._heard, me)
            of[each.peer] += read_post(each.envelope, receiver)
        self.words: Mapping[PartyId, Words] = {
            peer: Words(_decoded(self._said[peer]), _decoded(self._heard[peer])) for peer in self._said
        }

    @property
    def has_gone_further(self) -> bool:
        """Whether a run has begun at a peer, or somebody has left the job or come back to it."""
        both = (*self._said.values(), *self._heard.values())
        return any(each.header.attempt != NEGOTIATION for envelopes in both for each in _counted(envelopes))

    def sent_to(self, peer: PartyId) -> list[Envelope]:
        """Those that are counted."""
        return _counted(self._said[peer])

    def received_from(self, peer: PartyId) -> list[Envelope]:
        """Those that are counted."""
        return _counted(self._heard[peer])


def _counted(envelopes: list[Envelope]) -> list[Envelope]:
    return [envelope for envelope in envelopes if envelope.header.kind not in UNCOUNTED]


def _decoded(envelopes: list[Envelope]) -> tuple[Control, ...]:
    return tuple(decode_control(each.header.sender, each.header.kind, bytes(each.message)) for each in envelopes)
