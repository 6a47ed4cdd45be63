"""What the coordinator of a job hands on between parties: each signs its own word, and each checks the others'.

The roles in the workers exchange the messages and know nothing of it: a worker has no key to sign with, and what it
would be given has been checked before (docs/protocols/secure_sum.md).
"""

from parties.trust.handed_on import has_vouched, vouch
from parties.trust.signer import Signer
from parties.wire.envelopes import Bytes
from vfl.errors import RemoteProtocolError
from vfl.message import MESSAGES, HandedOn, decode, encode
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId


class Relay:
    """Of one job at one party."""

    def __init__(self, job: str, spec: JobSpec, signer: Signer) -> None:
        self._job, self._keys, self._signer = job, spec.identity_keys, signer

    def sign(self, kind: str, body: Bytes) -> Bytes:
        """A message of this party's role, as it leaves."""
        if not MESSAGES[kind].is_vouched:
            return body
        me = self._signer.current
        message, rotations = decode(me.name, kind, body), self._signer.rotations_since(self._keys[me.name])
        return encode(message.vouched(vouch(me, rotations, self._job, message.own_word(me.name))))

    def check(self, sender: PartyId, kind: str, body: Bytes) -> None:
        """A message of a peer, before the role reads it. Raises RemoteProtocolError, naming the peer."""
        if MESSAGES[kind].is_vouched:
            self._check(sender, decode(sender, kind, body).own_word(sender))
        if MESSAGES[kind].hands_on:
            for word in decode(sender, kind, body).handed_on():
                self._check(sender, word)

    def _check(self, sender: PartyId, word: HandedOn) -> None:
        named = self._keys.get(word.party)
        if named is None or not has_vouched(named, self._job, word):
            raise RemoteProtocolError(
                f"{sender} brings a {word.kind} of {word.party!r:.80} that this party's identity key has not signed in "
                "this job",
                fix=f"{sender} may have put its own in that place: run no job with it before it has explained that.",
            )
