"""One identity key follows another: this party's is told to every peer until it knows, and those of peers are heard.

    POST /peer/v1/rotation     the statements that lead from the key that the peer pins to the present one

A peer that is away is told when it is back, also by a server that was started again in between (docs/trust.md).
"""

import logging
import ssl
import threading
import time
from collections.abc import Callable
from functools import partial

import msgspec

from parties.enrolment import Enrolment
from parties.errors import UnknownSender, UnreadableBody
from parties.peers import Peers
from parties.storage.peer_store import REMOVED
from parties.trust.errors import RotationRefused
from parties.trust.identity import Identity
from parties.trust.rotation import MOST_ROTATIONS, SignedRotation
from parties.wire.envelopes import UNREADABLE
from parties.wire.outbox import Outbox
from parties.wire.transport import ROTATION_ROUTE, HttpTransport, TransportFailedError
from vfl.errors import JobError
from vfl.spec.sections import PartyId

EXCHANGE_SECONDS, ROUND_SECONDS = 4.0, 6.0
"""For one peer, and for all that are told at once."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 30.0
TAKEN, REFUSED = 200, 409

_LOG = logging.getLogger("parties")


class Statements(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rotations: list[SignedRotation]


class KeyRotation:
    """Safe for several threads."""

    def __init__(self, peers: Peers, enrolment: Enrolment, on_known: Callable[[PartyId, Outbox], None]) -> None:
        """`on_known` hears of a peer that pins another key of this party from now on."""
        self._peers, self._enrolment, self._on_known = peers, enrolment, on_known
        self._keys = peers.own_keys
        self._refused: set[PartyId] = set()
        self._problems: dict[PartyId, str] = {}
        """Why peers do not know the present key yet, as the last try has shown."""
        self._changed = threading.Condition()
        self._wanted = self._done = 0
        """Rounds in which all peers are told that do not know."""
        self._closing = False
        self._hearing: list[Callable[[Identity], None]] = []
        self._thread = threading.Thread(target=self._run, name="key rotation", daemon=True)
        self._thread.start()

    # This party's own key

    def rotate(self) -> list[PartyId]:
        """A new key from now on, which the peers that are there know when this returns; answers for whom an invitation
        was open, which names the old key and was withdrawn. Raises SettingsError, StorageFailed."""
        former = self._keys.rotate()
        withdrawn = [each.peer for each in self._enrolment.open_invitations()]
        for peer in withdrawn:
            self._enrolment.withdraw(peer)
        with self._changed:
            self._refused.clear()
            self._wanted += 1
            wanted = self._wanted
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._done >= wanted or self._closing, ROUND_SECONDS)
        # From here on whoever calls must know the new key; who does not is told as soon as it can be reached.
        self._peers.tls.renew()
        for hear in self._hearing:
            hear(self._keys.current)
        _LOG.warning(
            "the identity key %s was replaced by %s",
            former.identity_key.fingerprint,
            self._keys.current.key.fingerprint,
        )
        return withdrawn

    def on_rotated(self, hear: Callable[[Identity], None]) -> None:
        """Tell of each new key when peers have been told."""
        self._hearing.append(hear)

    def problem_with(self, peer: PartyId) -> str:
        """Why a peer does not know the present key yet; empty where it was not tried."""
        return "" if self._keys.is_known_to(peer) else self._problems.get(peer, "")

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(ROUND_SECONDS)

    # The key of a peer

    def hear(self, issuer: str, body: bytes) -> None:
        """What a peer says, whose key has issued the certificate that it shows. Raises UnknownSender, UnreadableBody,
        RotationRefused, StorageFailed."""
        peer = self._peers.issued_by(issuer)
        if peer is None:
            raise UnknownSender("the other end is not known here")
        try:
            statements = msgspec.msgpack.decode(body, type=Statements)
        except UNREADABLE:
            raise UnreadableBody("this is no statement about a key") from None
        self._peers.follow(peer.name, statements.rotations[: MOST_ROTATIONS + 1])

    # How peers are told

    def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._closing:
            with self._changed:
                serving = self._wanted
            self._tell_all(self._due())
            self._forget_old()
            with self._changed:
                self._done = serving
                self._changed.notify_all()
                is_wanted = self._changed.wait_for(partial(self._is_wanted, serving), pause)
            pause = FIRST_PAUSE_SECONDS if is_wanted else min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _is_wanted(self, served: int) -> bool:
        return self._wanted > served or self._closing

    def _due(self) -> list[PartyId]:
        peers = self._peers.outboxes if self._peers.have_addresses else ()
        untold = [peer for peer in peers if not self._keys.is_known_to(peer) and peer not in self._refused]
        return [peer for peer in untold if self._keys.last_leaf(peer) is not None]

    def _tell_all(self, names: list[PartyId]) -> None:
        threads = [threading.Thread(target=self._tell, args=(name,), daemon=True) for name in names]
        deadline = time.monotonic() + ROUND_SECONDS
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _tell(self, name: PartyId) -> None:
        rotations = self._keys.rotations_since(self._keys.pinned_by(name))
        if not rotations:
            return
        # A peer whose answer was lost opens its door, after a day, to the present key alone.
        for context in (self._peers.tls.client, self._peers.tls.client_with_present_key):
            try:
                if self._tell_over(name, rotations, partial(context, name)):
                    return
            except (TransportFailedError, JobError) as error:
                self._problems[name] = str(error)

    def _tell_over(self, name: PartyId, rotations: list[SignedRotation], context: Callable[[], ssl.SSLContext]) -> bool:
        """Whether the peer has given an answer that holds. Raises TransportFailedError, StorageFailed."""
        learn = partial(self._peers.tls.learn, name)
        transport = HttpTransport(
            lambda: self._peers.get(name).address, context, EXCHANGE_SECONDS, ROTATION_ROUTE, learn
        )
        try:
            answer = transport.post([msgspec.msgpack.encode(Statements(rotations))])
        finally:
            transport.close()
        if answer.status == TAKEN:
            self._keys.note_pinned(name, rotations[-1].read().new)
            self._peers.tls.forget(name)
            if (outbox := self._peers.outboxes.get(name)) is not None:
                self._on_known(name, outbox)
        elif answer.status == REFUSED:
            self._refused.add(name)
            self._problems[name] = "it does not take the new key, because another one follows the old one there"
            _LOG.error("%s: %s. %s", name, self._problems[name], RotationRefused.fix)
        return answer.status in {TAKEN, REFUSED}

    def _forget_old(self) -> None:
        try:
            self._keys.forget_old([peer.name for peer in self._peers.all() if peer.state != REMOVED])
        except JobError as error:
            _LOG.warning("a former key is not deleted yet: %s", error)
