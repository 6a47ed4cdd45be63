"""Parties that keep audit logs of envelopes without a server between them, and export bundles.

Keys come from names and the clock counts, so the same calls give the same bytes.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from parties.trust.bundle import BundleContent, PartyKeys, SignedReceipt, bundle_files
from parties.trust.contract import Contract, sign
from parties.trust.identity import Identity
from parties.trust.leaves import LATE, Event, Leaf, encode
from parties.trust.log_keys import cosigning_key, log_key
from parties.trust.merkle import Place, consistency_proof, grow, leaf_hash, root
from parties.trust.notes import Checkpoint, Note
from parties.trust.rotation import Rotation, SignedRotation
from parties.trust.witness import AddCheckpoint, add_cosignatures, check

ENVELOPE_DOMAIN, RECEIPT_DOMAIN = b"vfl-envelope-v1\0", b"vfl-receipt-v1\0"
ROTATION_DOMAIN = b"vfl-key-rotation-v1\0"
NO_ENVELOPE = bytes(32)
SPECIFICATION, MANIFEST = b"what was agreed", b'{"model_digest": "ab"}'
SPECIFICATION_DIGEST = hashlib.sha256(SPECIFICATION).digest()
Lane = tuple[str, str, int]
"""Peer, job, attempt."""


class Sent(msgspec.Struct, frozen=True):
    header: bytes
    signature: bytes

    def __getattr__(self, name: str) -> Any:
        return msgspec.msgpack.decode(self.header)[name]

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.header).digest()


class AuditedParty:
    def __init__(self, name: str) -> None:
        self.name = name
        self.identity, self.cosigning = (
            Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"{use} of {name}".encode()).digest())
            for use in ("identity", "cosigning")
        )
        self.peers: list[AuditedParty] = []
        self.leaves: list[bytes] = []
        self.tree: dict[Place, bytes] = {}
        self.heads: list[Note] = []
        """Cosigned, in the order of their sizes."""
        self.cosigned: dict[str, Note] = {}
        self.receipts: dict[Lane, SignedReceipt] = {}
        self.contracts: dict[str, Contract] = {}
        self.manifests: dict[str, bytes] = {}
        self._lanes: dict[Lane, tuple[int, bytes]] = {}
        self._now = 1_700_000_000_000
        self._former: list[PartyKeys] = []

    @property
    def keys(self) -> PartyKeys:
        identity, cosigning = (key.public_key().public_bytes_raw() for key in (self.identity, self.cosigning))
        earlier = [(keys.identity, keys.cosigning) for keys in reversed(self._former)]
        return PartyKeys(self.name, identity, cosigning, tuple(one for one, _ in earlier), tuple(o for _, o in earlier))

    def rotate(self, told: "Sequence[AuditedParty]") -> SignedRotation:
        """Other keys from now on, of which these peers hear."""
        old, old_identity = self.keys, self.identity
        next_keys = AuditedParty(f"{self.name} after {len(self._former) + 1}")
        self._former.append(old)
        self.identity, self.cosigning = next_keys.identity, next_keys.cosigning
        rotation = Rotation(self.name, old.identity, self.keys.identity, self.keys.cosigning, self._now // 1000)
        encoded = msgspec.msgpack.encode(rotation)
        by_old, by_new = (key.sign(ROTATION_DOMAIN + encoded) for key in (old_identity, self.identity))
        signed = SignedRotation(encoded, by_old, by_new)
        self.log(Event.KEY_ROTATED, detail=signed.detail())
        for peer in told:
            peer.log(Event.KEY_ROTATED, peer=self.name, detail=signed.detail())
        return signed

    def with_leaves(self, leaves: Sequence[bytes]) -> "AuditedParty":
        """The same party with another log, which nobody has cosigned."""
        other = AuditedParty(self.name)
        other.peers, other.receipts, other.cosigned = self.peers, self.receipts, self.cosigned
        other.contracts, other.manifests = self.contracts, self.manifests
        for leaf in leaves:
            other.append(leaf)
        return other

    def log(self, event: Event, **fields: Any) -> None:
        self._now += 7
        self.append(encode(Leaf(time_ms=self._now, event=event, **fields)))

    def approve(self, most: Mapping[str, int | str], job: str = "job-1") -> None:
        """So many messages of each kind may leave for one peer."""
        budget = " ".join(f"{kind}:{messages}" for kind, messages in sorted(most.items()))
        detail = {"by": "operator", "specification": SPECIFICATION_DIGEST.hex(), "budget": budget}
        self.log(Event.JOB_APPROVED, job=job, detail=detail)

    def agree(self, *others: "AuditedParty", job: str = "job-1") -> None:
        """All of them have signed."""
        signed = {
            party.name: sign(Identity(party.name, party.identity), job, SPECIFICATION_DIGEST)
            for party in (self, *others)
        }
        self.contracts[job] = Contract(SPECIFICATION, signed)
        self.log(Event.JOB_AGREED, job=job, detail={"specification": SPECIFICATION_DIGEST.hex()})

    def end(self, job: str = "job-1") -> None:
        self.manifests[job] = MANIFEST
        self.log(Event.JOB_ENDED, job=job, detail={"state": "done", "manifest": hashlib.sha256(MANIFEST).hexdigest()})

    def append(self, leaf: bytes) -> None:
        self.tree |= grow(len(self.leaves), [leaf_hash(leaf)], self.tree.__getitem__)
        self.leaves.append(leaf)

    def send(self, peer: "AuditedParty", kind: str, job: str = "job-1", attempt: int = 1, **changed: Any) -> Sent:
        lane = (peer.name, job, attempt)
        is_counted = kind not in {"Finish", "Abort", "Refusal", "Ask"}
        sequence, previous = self._lanes.get(lane, (0, NO_ENVELOPE)) if is_counted else (0, NO_ENVELOPE)
        fields = {"sender": self.name, "receiver": peer.name, "kind": kind, "sequence": sequence, "previous": previous}
        envelope = self.sign({"job": job, "attempt": attempt, **fields} | changed)
        if is_counted:
            self._lanes[lane] = sequence + 1, envelope.digest
        self.log_envelope(Event.SENT, peer, envelope)
        return envelope

    def sign(self, fields: dict[str, Any]) -> Sent:
        header = msgspec.msgpack.encode(
            {
                "wire_version": 4,
                "job_digest": SPECIFICATION_DIGEST,
                "part": 1,
                "parts": 1,
                "body_bytes": 100,
                "body_digest": hashlib.sha256(fields["kind"].encode()).digest(),
                "sent_at": self._now / 1000,
                "key": hashlib.sha256(self.keys.identity).digest(),
                "salt_bytes": 16,
                **fields,
            }
        )
        return Sent(header, self.identity.sign(ENVELOPE_DOMAIN + header))

    def receive(self, sender: "AuditedParty", envelope: Sent, *, is_late: bool = False) -> SignedReceipt:
        self.log_envelope(Event.RECEIVED, sender, envelope, detail={LATE: 1} if is_late else {})
        receipt = SignedReceipt(
            receiver=self.name,
            job=envelope.job,
            attempt=envelope.attempt,
            next=envelope.sequence + 1,
            last=envelope.digest,
            signature=b"",
        )
        signature = self.identity.sign(RECEIPT_DOMAIN + receipt.signed_message(sender.name))
        return msgspec.structs.replace(receipt, signature=signature)

    def log_envelope(self, event: Event, peer: "AuditedParty", envelope: Sent, **fields: Any) -> None:
        self.log(
            event, job=envelope.job, peer=peer.name, header=envelope.header, signature=envelope.signature, **fields
        )

    def take(self, receipt: SignedReceipt) -> None:
        self.receipts[receipt.receiver, receipt.job, receipt.attempt] = receipt

    def head(self) -> Note:
        size = len(self.leaves)
        text = str(Checkpoint(f"{self.name}/audit-log", size, root(size, self.tree.__getitem__)))
        return Note(text).signed(log_key(self.name, self.keys.identity).sign(text, self.identity.sign))

    def ask_to_cosign(self, witness: "AuditedParty") -> None:
        newest = witness.cosigned.get(self.name)
        known = Checkpoint.parse(newest.text) if newest else None
        old = known.size if known else 0
        path = consistency_proof(old, len(self.leaves), self.tree.__getitem__)
        request = AddCheckpoint(old, tuple(path), self.head())
        head = check(request, log_key(self.name, self.keys.identity), known)
        key = cosigning_key(witness.name, witness.keys.cosigning)
        witness._now += 11
        line = key.cosign(str(head), witness._now // 1000, witness.cosigning.sign)
        witness.cosigned[self.name] = request.checkpoint.signed(line)
        self.heads.append(add_cosignatures(request.checkpoint, str(line).encode(), [key]))

    def content(self) -> BundleContent:
        return BundleContent(
            me=self.keys,
            peers=[peer.keys for peer in self.peers],
            leaves=self.leaves,
            checkpoint=self.head(),
            earlier=self.heads,
            cosigned=list(self.cosigned.values()),
            receipts=list(self.receipts.values()),
            contracts=self.contracts,
            manifests=self.manifests,
        )

    def export(self, **changed: Any) -> dict[str, bytes]:
        """The files of a bundle."""
        return bundle_files(replace(self.content(), **changed), self.identity.sign)


def acquainted(*names: str) -> list[AuditedParty]:
    parties = [AuditedParty(name) for name in names]
    for party in parties:
        party.peers = [peer for peer in parties if peer is not party]
        for peer in party.peers:
            party.log(Event.PEER_ADDED, peer=peer.name)
    return parties


def exchange(sender: AuditedParty, receiver: AuditedParty, kind: str, job: str = "job-1", attempt: int = 1) -> None:
    """An envelope that arrives and is acknowledged."""
    sender.take(receiver.receive(sender, sender.send(receiver, kind, job, attempt)))


def after_a_job(steps: int = 4) -> tuple[AuditedParty, AuditedParty]:
    """Two parties that have trained together and have cosigned each other's logs, on the way and at the end."""
    bank, clinic = acquainted("bank", "clinic")
    bank.approve({"MaskedGradient": "-"})
    exchange(bank, clinic, "Proposal", attempt=0)
    clinic.approve({"EncryptedEmbedding": "-", "OpenedGradient": steps})
    exchange(clinic, bank, "Acceptance", attempt=0)
    bank.agree(clinic)
    exchange(bank, clinic, "Begin")
    clinic.agree(bank)
    for step in range(steps):
        exchange(clinic, bank, "EncryptedEmbedding")
        exchange(bank, clinic, "MaskedGradient")
        exchange(clinic, bank, "OpenedGradient")
        if step % 2:
            bank.ask_to_cosign(clinic)
            clinic.ask_to_cosign(bank)
    exchange(clinic, bank, "Finish", attempt=2)
    exchange(bank, clinic, "Finish", attempt=2)
    for party in (bank, clinic):
        party.end()
    bank.ask_to_cosign(clinic)
    clinic.ask_to_cosign(bank)
    return bank, clinic
