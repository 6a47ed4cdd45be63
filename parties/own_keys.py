"""This party's identity keys: the present one, those that it has followed, and which of them each peer pins.

After a rotation each peer is spoken to with the key that it pins, until it has taken the new one; so nothing that runs
breaks. A former key signs for 24 hours and is then deleted; a last certificate that it has issued stays until every
peer knows the new key, because a peer opens its door to nobody else (docs/trust.md).
"""

import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import NamedTuple

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from parties.errors import SettingsError, StorageFailed
from parties.storage import grants, rotations
from parties.storage.engine import Database
from parties.storage.passed import AUDIT_LOG
from parties.storage.rotations import FormerKey
from parties.trust.certificates import LEAF_DAYS, Leaf, issue_leaf
from parties.trust.identity import Identity, IdentityKey
from parties.trust.key_file import KEY_FILE, FormerIdentity, KeyFolder
from parties.trust.leaves import Event
from parties.trust.rotation import OVERLAP_SECONDS, SignedRotation
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId

LEAF_SECONDS = LEAF_DAYS * 86_400.0
"""So long a peer that is away can still be told of the new key."""


class _Keys(NamedTuple):
    """All at one moment."""

    current: Identity
    former: tuple[FormerKey, ...] = ()
    """Public halves, the newest first."""
    identities: tuple[FormerIdentity, ...] = ()
    """What identity.former holds, the newest first."""
    signing: Mapping[bytes, Identity] = MappingProxyType({})
    """Former keys whose private halves are still there."""

    def with_former(self, former: Sequence[FormerKey]) -> "_Keys":
        private = {each.signed.read().old: each.private for each in self.identities if each.private}
        signing = {
            key: Identity(self.current.name, Ed25519PrivateKey.from_private_bytes(raw)) for key, raw in private.items()
        }
        return self._replace(former=tuple(former), signing=signing)


class OwnKeys:
    """A Signer. Safe for several threads."""

    def __init__(self, identity: Identity, files: KeyFolder, database: Database) -> None:
        """Raises SettingsError where `identity` has been replaced by another key already."""
        self.name = identity.name
        self._files, self._database = files, database
        self._changing = threading.Lock()
        with database.reading() as connection:
            former_keys = rotations.all_former(connection, self.name)
            self._pinned = rotations.pinned_keys(connection)
        if any(former.key == identity.key.raw for former in former_keys):
            raise SettingsError(
                f"{KEY_FILE} holds a key of {self.name} that another key has replaced: an old copy was put back",
                fix="Put the newest copy of it back. If that is lost, make a new party and enrol it with every peer.",
            )
        # Where a server was killed before it had written the new key, nothing was rotated.
        identities = tuple(each for each in files.former() if each.signed.read().old != identity.key.raw)
        self._keys = _Keys(identity, identities=identities)
        self._finish()
        with database.reading() as connection:
            former = rotations.former_keys(connection, self.name, identity.key.raw)
        self._keys = self._keys.with_former(former)

    @property
    def current(self) -> Identity:
        return self._keys.current

    @property
    def former(self) -> tuple[FormerKey, ...]:
        """The newest first."""
        return self._keys.former

    # With which key a peer is spoken to

    def for_peer(self, peer: PartyId) -> Identity:
        """The key that it pins, while this party still signs with it."""
        return self.with_key(self.pinned_by(peer)) or self.current

    def for_peers(self, peers: Iterable[PartyId]) -> Identity:
        """One key that all of them take: the oldest of those."""
        by_key = {identity.key.raw: identity for identity in map(self.for_peer, peers)}
        return next((by_key[each.key] for each in reversed(self.former) if each.key in by_key), self.current)

    def counts(self, digest: bytes) -> bool:
        """Whether the key of this digest is the present one, or one that counts beside it."""
        return any(key.digest == digest for key in self.keys(time.time()))

    def keys(self, at: float) -> tuple[IdentityKey, ...]:
        """Those that count at this moment (Unix seconds)."""
        keys = self._keys
        return (keys.current.key, *(former.identity_key for former in keys.former if at < former.until))

    def for_contract(self, spec: JobSpec) -> Identity:
        """The key that the specification names, or else one that all others take."""
        named = self.with_key(spec.identity_keys.get(self.name, b""))
        return named or self.for_peers(spec.peers_of(self.name))

    def with_key(self, key: bytes) -> Identity | None:
        """The identity of this key, while this party still signs with it."""
        keys = self._keys
        if key == keys.current.key.raw:
            return keys.current
        counts = any(former.key == key and time.time() < former.until for former in keys.former)
        return keys.signing.get(key) if counts else None

    def pinned_by(self, peer: PartyId) -> bytes:
        keys = self._keys
        first = keys.former[-1].key if keys.former else keys.current.key.raw
        return self._pinned.get(peer, first)

    def is_known_to(self, peer: PartyId) -> bool:
        """Whether it pins the present key."""
        return self.pinned_by(peer) == self.current.key.raw

    def last_leaf(self, peer: PartyId) -> Leaf | None:
        """The last certificate of the former key that this peer pins, while it is good."""
        pinned = self.pinned_by(peer)
        former = next((each for each in self._keys.identities if each.signed.read().old == pinned), None)
        if former is None or time.time() >= former.leaf_made_at + LEAF_SECONDS:
            return None
        return Leaf(former.leaf, datetime.fromtimestamp(former.leaf_made_at, UTC))

    def rotations_since(self, key: bytes) -> list[SignedRotation]:
        """What leads from this key to the present one, the oldest first; nothing where no way does."""
        former = self.former
        numbers = [number for number, each in enumerate(former) if each.key == key]
        return [each.signed for each in reversed(former[: numbers[0] + 1])] if numbers else []

    def note_pinned(self, peer: PartyId, key: bytes) -> None:
        """Raises StorageFailed."""
        with self._database.writing() as connection:
            rotations.note_pinned(connection, peer, key)
        self._pinned = {**self._pinned, peer: key}

    # How one key follows another

    def rotate(self) -> FormerKey:
        """Make a new key. Raises SettingsError, StorageFailed: then the key is the same as before."""
        with self._changing:
            before = self._keys
            old, new, made_at = before.current, Identity.generate(self.name), int(time.time())
            leaf = issue_leaf(old.private, self.name)
            replaced = FormerIdentity(
                SignedRotation.of(old, new, made_at),
                old.cosigning.public_key().public_bytes_raw(),
                old.private.private_bytes_raw(),
                leaf.pem,
                leaf.made_at.timestamp(),
            )
            after = _Keys(new, identities=(replaced, *before.identities))
            # The old key stays on the disk until the new one is there, and the statement lies beside it.
            self._files.save_former(self.name, after.identities)
            try:
                self._files.save(new)
                former = _former(replaced)
                self._store(former, new)
            except BaseException:
                self._put_back(before)
                raise
            self._keys = after.with_former((former, *before.former))
            return former

    def _put_back(self, before: _Keys) -> None:
        """Raises StorageFailed where the new key stays on the disk: then it counts from the next start on."""
        try:
            self._files.save(before.current)
        except StorageFailed as error:
            if self._files.identity().key == before.current.key:
                raise
            raise StorageFailed(
                f"the new key could not be logged, and {KEY_FILE} cannot be written back",
                safe="The old key counts until this server is started again, and the new key, which no peer knows yet, "
                "from then on.",
                fix="Free space in the party's folder, or correct its owner, and start the server again.",
            ) from error
        self._files.save_former(self.name, before.identities)

    def _finish(self) -> None:
        """Store what the server did not come to store that was killed while it rotated."""
        with self._database.reading() as connection:
            stored = {former.key for former in rotations.all_former(connection, self.name)}
        for former in map(_former, reversed(self._keys.identities)):
            if former.key not in stored:
                self._store(former, self.current)

    def forget_old(self, peers: Collection[PartyId]) -> None:
        """Delete what is not needed any more of former keys; `peers` are those that may have to be told."""
        with self._changing:
            now, awaited = time.time(), {self.pinned_by(peer) for peer in peers}
            identities = []
            for each in self._keys.identities:
                counts = now < _former(each).until
                if counts or (each.signed.read().old in awaited and now < each.leaf_made_at + LEAF_SECONDS):
                    identities.append(each if counts else msgspec.structs.replace(each, private=b""))
            if tuple(identities) != self._keys.identities:
                self._files.save_former(self.name, identities)
                self._keys = self._keys._replace(identities=tuple(identities)).with_former(self.former)

    def _store(self, former: FormerKey, present: Identity) -> None:
        """In one commit, with what the former key has signed for this party alone."""
        with self._database.writing() as connection:
            rotations.add(connection, self.name, former)
            grants.sign_again(connection, former.identity_key, present)
            AUDIT_LOG.tell(connection, Event.KEY_ROTATED, "", "", **former.signed.detail())


def _former(identity: FormerIdentity) -> FormerKey:
    rotation = identity.signed.read()
    until = rotation.made_at + OVERLAP_SECONDS
    return FormerKey(key=rotation.old, cosigning_key=identity.cosigning_key, until=until, signed=identity.signed)
