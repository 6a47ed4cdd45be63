"""The audit log as the operator reads it, and this party as the witness of its peers' logs
(docs/protocols/audit_log.md)."""

import base64
import binascii
import hashlib
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from parties.cosigning import AskedWitness, Cosigning, cosigned_size, head_of
from parties.errors import printable
from parties.own_keys import OwnKeys
from parties.peers import Peers
from parties.storage import approvals
from parties.storage.cosigned_heads import cosigned
from parties.storage.engine import Database
from parties.storage.ledger import Ledger
from parties.storage.models import ModelStore
from parties.storage.passed import AUDIT_LOG, receipts
from parties.storage.peer_store import StoredPeer
from parties.trust.bundle import BundleContent, PartyKeys, bundle_files
from parties.trust.errors import RewrittenLog, UnknownLeaf, UnknownLog
from parties.trust.identity import Identity
from parties.trust.leaves import Event, Leaf, decode
from parties.trust.log_keys import cosigning_key, log_key, origin
from parties.trust.merkle import leaf_hash
from parties.trust.notes import Checkpoint, Proof
from parties.trust.witness import AddCheckpoint, WitnessStanding
from parties.witness import Witness
from vfl.spec.sections import PartyId

ENVELOPE_FIELDS = ("sender", "receiver", "kind", "attempt", "sequence", "part", "parts", "body_bytes")


class Head(msgspec.Struct, frozen=True):
    size: int
    """How many entries the log has."""
    root: str
    """Of their tree, hex."""
    checkpoint: str
    """The same as a signed note."""
    key: str
    """That signs heads of this log, as a witness needs it (c2sp.org/signed-note)."""
    cosigned: dict[PartyId, int]
    """Of each trusted peer, how many entries the newest head counts that it has cosigned."""
    witnesses: list[WitnessStanding]
    """Those that are no peers."""


class Entry(msgspec.Struct, frozen=True):
    """A leaf of the audit log."""

    index: int
    time: str
    event: str
    job: str
    peer: str
    detail: dict[str, Any]
    envelope: dict[str, Any] | None
    """What its header says, with the digests of header and body, hex."""
    hash: str
    """Of the leaf, hex."""


class Audit:
    """Safe for several threads."""

    def __init__(
        self, peers: Peers, others: Sequence[AskedWitness], database: Database, models: ModelStore, ledger: Ledger
    ) -> None:
        """`others` cosign the log beside the peers."""
        self._peers, self._database, self._models, self._ledger = peers, database, models, ledger
        self._cosigning = Cosigning(peers, others, self._database, ledger)

    def check(self, peers: Iterable[PartyId]) -> None:
        """Before a job with them begins. Raises AuditLogContradicted, AuditLogUnconfirmed."""
        self._cosigning.check(peers)

    def check_restored(self, peers: Iterable[PartyId]) -> None:
        """The same before a job goes on that was open when this party was put back from a backup."""
        self._cosigning.check_restored(peers)

    def close(self) -> None:
        self._cosigning.close()

    @property
    def _me(self) -> Identity:
        return self._peers.identity

    # For this party's operator

    def head(self) -> Head:
        self._ledger.flush()
        trusted = [peer for peer in self._peers.all() if peer.is_trusted]
        with self._database.reading() as connection:
            note = head_of(self._me, connection)
            checkpoint = Checkpoint.parse(note.text)
            cosigned = {peer.name: cosigned_size(connection, peer.cosigners) for peer in trusted}
        key = str(log_key(self._me.name, self._me.key.raw))
        return Head(checkpoint.size, checkpoint.root.hex(), str(note), key, cosigned, self.witnesses())

    def witnesses(self) -> list[WitnessStanding]:
        """How those stand that are no peers."""
        return self._cosigning.standings()

    def entries(self, after: int, limit: int) -> list[Entry]:
        """From the leaf number `after` on: numbers begin at 0."""
        self._ledger.flush()
        with self._database.reading() as connection:
            end = min(AUDIT_LOG.size(connection), after + limit)
            leaves = list(AUDIT_LOG.leaves(connection, after, end))
        return [_entry(index, leaf) for index, leaf in enumerate(leaves, after)]

    def proof(self, index: int) -> str:
        """That a leaf stands in the log, and the leaf itself (c2sp.org/tlog-proof). Raises UnknownLeaf."""
        self._ledger.flush()
        with self._database.reading() as connection:
            size = AUDIT_LOG.size(connection)
            if not 0 <= index < size:
                raise UnknownLeaf(f"the audit log of {self._me.name} has {size} entries, and none with number {index}")
            newest = next(AUDIT_LOG.newest_heads(connection), None)
            covers = newest is not None and Checkpoint.parse(newest.text).size > index
            note = newest if newest and covers else head_of(self._me, connection, size)
            path = AUDIT_LOG.inclusion_proof(connection, index, Checkpoint.parse(note.text).size)
            (leaf,) = AUDIT_LOG.leaves(connection, index, index + 1)
        return str(Proof(index, tuple(path), note, leaf))

    def bundle(self) -> dict[str, bytes]:
        """The files of a bundle by name; that it was made is its last leaf. Raises StorageFailed."""
        self._ledger.tell(Event.EXPORTED)
        self._ledger.flush()
        with self._database.reading() as connection:
            size = AUDIT_LOG.size(connection)
            leaves = list(AUDIT_LOG.leaves(connection, 0, size))
            heads = AUDIT_LOG.heads(connection)
            seen, signed_for = cosigned(connection), receipts(connection)
            checkpoint = head_of(self._me, connection, size)
            decoded = list(map(decode, leaves))
            contracts = {job: approvals.contract(connection, job) for job in _jobs(decoded, Event.JOB_AGREED)}
        peers = [_keys(peer, decoded) for peer in self._peers.all()]
        names = {peer.party for peer in peers}
        manifests = {job: self._models.manifest(job) for job in _jobs(decoded, Event.JOB_ENDED)}
        content = BundleContent(
            me=_own_keys(self._peers.own_keys),
            peers=peers,
            witnesses=self._cosigning.keys_of_others,
            leaves=leaves,
            checkpoint=checkpoint,
            earlier=[note for note in heads if Checkpoint.parse(note.text).size < size],
            cosigned=[note for log, note in seen.items() if log in map(origin, names)],
            receipts=[receipt for receipt in signed_for if receipt.receiver in names],
            contracts={job: contract for job, contract in contracts.items() if contract is not None},
            manifests={job: manifest for job, manifest in manifests.items() if manifest is not None},
        )
        return bundle_files(content, self._me.private.sign)

    # For peers

    def cosign(self, issuer: str, encoded: bytes) -> str:
        """The line by which this party cosigns the newest head of the log of the peer whose key issued the certificate.

        Raises MalformedNote, NoteNotSigned, UnknownLog, StaleHead, RewrittenLog, StorageFailed.
        """
        request = AddCheckpoint.parse(encoded)
        peer = self._peers.issued_by(issuer)
        if peer is None:
            raise UnknownLog("no log of this party is known here")
        now, me = time.time(), self._peers.own_keys.for_peer(peer.name)
        witness = Witness(cosigning_key(me.name, _cosigner(me)), me.cosigning.sign, self._database)
        log = [log_key(peer.name, key.raw) for key in peer.keys(now)]
        try:
            return witness.cosign(log, request, earlier=[log_key(peer.name, key) for key in peer.all_keys])
        except RewrittenLog as error:
            self._ledger.refused(peer.name, error.code, head=request.checkpoint.text)
            raise

    def note_refusal(self, issuer: str, code: str, request: str) -> None:
        """Something else was refused to the peer whose key issued the certificate, or to somebody unknown."""
        self._ledger.refused(self._peers.name_of(issuer), code, request=printable(request))


def _jobs(leaves: Iterable[Leaf], event: Event) -> list[str]:
    return sorted({leaf.job for leaf in leaves if leaf.event is event})


def _own_keys(own: OwnKeys) -> PartyKeys:
    earlier = tuple(former.key for former in own.former)
    cosigning = tuple(former.cosigning_key for former in own.former)
    return PartyKeys(own.name, own.current.key.raw, _cosigner(own.current), earlier, cosigning)


def _cosigner(me: Identity) -> bytes:
    return me.cosigning.public_key().public_bytes_raw()


def _keys(peer: StoredPeer, leaves: Iterable[Leaf]) -> PartyKeys:
    """Also those that it had when it was enrolled before."""
    named = [_key(leaf.detail.get("key", "")) for leaf in leaves if leaf.peer == peer.name]
    earlier = {key: None for key in (*peer.all_keys, *named) if key and key != peer.key}
    return PartyKeys(peer.name, peer.key, peer.cosigning_key, tuple(earlier), peer.all_cosigning_keys[1:])


def _key(text: str | int) -> bytes:
    try:
        return base64.b64decode(str(text), validate=True)
    except binascii.Error:
        return b""


def _entry(index: int, encoded: bytes) -> Entry:
    leaf = decode(encoded)
    when = datetime.fromtimestamp(leaf.time_ms / 1000, UTC).isoformat(timespec="milliseconds")
    envelope = _envelope(leaf.header) if leaf.header else None
    detail = dict(leaf.detail)
    return Entry(index, when, leaf.event.value, leaf.job, leaf.peer, detail, envelope, leaf_hash(encoded).hex())


def _envelope(encoded: bytes) -> dict[str, Any]:
    header = msgspec.msgpack.decode(encoded)
    detail = {name: header[name] for name in ENVELOPE_FIELDS}
    digest = hashlib.sha256(encoded).hexdigest()
    return detail | {"body_digest": header["body_digest"].hex(), "digest": digest}
