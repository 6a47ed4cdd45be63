"""Check the audit logs of two parties, or of one: without network, without their software, on any computer.

    python verifier.py BUNDLE [PEER_BUNDLE] [--key NAME=BASE64 ...]

Needs Python 3.11 and the package `cryptography`. `--key` names the identity key of a party, or the key of a witness, as
you know it from elsewhere.
Exit code: 0 if all of this holds, 1 if something does not, 2 for wrong arguments.

Each bundle alone
  1  the manifest, signed by the party's identity key, names every file and its SHA-256
  2  each leaf has the hash that was logged
  3  their tree (RFC 6962) has the root of the newest head; the head's signature and cosignatures are good
  4  the same holds for each earlier head: the log only grew
  5  each leaf is written as it should be, and fits the header of its envelope
  6  each envelope is signed by a key of its sender; a key that follows another is named by both, and leads on to the
     present one
  7  in each job, attempt and direction envelopes are numbered without a gap, and each names the one before it; what
     ends a job or asks about it stands outside the count, and so does what came late
  8  what a peer has signed as received, this party has sent
  9  nobody has signed two envelopes of one number
  10 of each kind of message that reveals something, no more has left for a peer than the budget of the job allows
  11 of each job that began, the specification is the one that was logged, and all that began it have signed it
  12 the manifest of each model is the one that was logged when its job ended
Two bundles against each other
  13 each names the other's keys as the other does
  14 each log still has the head that the other cosigned last, and no cosignature was forgotten
  15 what one has a receipt for, the other has received; what one has received, the other has sent
"""

import argparse
import base64
import hashlib
import itertools
import json
import struct
import sys
from collections import Counter
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

LEAF = {"version": int, "time_ms": int, "event": str, "job": str, "peer": str, "header": bytes, "signature": bytes}
LEAF |= {"detail": dict}
HEADER = {"sender": str, "receiver": str, "job": str, "kind": str, "attempt": int, "sequence": int, "previous": bytes}
HEADER |= {"key": bytes, "job_digest": bytes, "part": int}
ENVELOPE_EVENTS = {"sent", "received", "refused"}
OTHER_EVENTS = {"peer_added", "peer_removed", "key_rotated", "grant_created", "grant_revoked", "job_agreed"}
OTHER_EVENTS |= {"job_approved", "job_rejected", "job_ended", "model_imported", "exported", "restored"}
OUTSIDE_THE_COUNT = {"Finish", "Abort", "Refusal", "Ask"}
WORDS = OUTSIDE_THE_COUNT | {"Proposal", "Waiting", "Acceptance", "Begin", "Detach", "Join"}
"""What parties say around a job: it needs no budget."""
ENVELOPE, RECEIPT, CONTRACT = b"vfl-envelope-v1\0", b"vfl-receipt-v1\0", b"vfl-specification-v1\0"
ROTATION = b"vfl-key-rotation-v1\0"
"""What stands before the signed bytes."""
UNSIGNED_FILES = {"manifest", "README.txt", "verifier.py"}
ED25519, COSIGNATURE, UNLIMITED = 1, 4, "-"
PROBLEMS_SHOWN = 20
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, OverflowError, OSError, RecursionError, struct.error)
OLDER = "the party removed it, or its bundle is the older one: then export both again"
NOT_PROVEN = (
    "that data and labels are true; what happens inside a party; what the messages held; that a budget fits its"
    " specification; what a party leaves out of its log after the newest head that another has cosigned"
)


class Problem(NamedTuple):
    bundle: str
    leaf: int | None
    text: str

    def __str__(self) -> str:
        return f"{self.bundle}{'' if self.leaf is None else f', leaf {self.leaf}'}: {self.text}"


Findings = Iterator[tuple[int | None, str]]
"""The leaf, where one is concerned, and what is wrong."""


def say(text: str) -> None:
    """Names come from bundles: none of their letters may steer a terminal."""
    print("".join(letter if letter.isprintable() else " " for letter in text))


# MessagePack, as far as leaves, headers and receipts need it

TAGS = b"\xc4\xc5\xc6\xca\xcb\xcc\xcd\xce\xcf\xd0\xd1\xd2\xd3\xd9\xda\xdb\xde\xdf"
NUMBERS = dict(zip(TAGS, "BHIfdBHIQbhiqBHIHI", strict=True))
"""How the number behind a tag is written: a value for the tags from 0xCA to 0xD3, a length for the others."""
SHAPES: dict[type, tuple[int, int, int]] = {bytes: (0, 0, 0xC4), str: (0xA0, 32, 0xD9)}
SHAPES |= {list: (0x90, 16, 0xDB), dict: (0x80, 16, 0xDD)}
"""Tag and limit of the short form, and the tag of a length of one byte, also where that does not exist."""


def unpack(data: bytes) -> dict[str, Any]:
    """One map. Raises one of UNREADABLE."""
    value, end = _unpack(data, 0)
    if end != len(data) or not isinstance(value, dict):
        raise ValueError("it is not one map")
    return value


def _unpack(data: bytes, at: int, depth: int = 0) -> tuple[Any, int]:
    tag, at = data[at], at + 1
    if tag < 0x80 or tag >= 0xE0:
        return tag - (tag >> 7 << 8), at
    number = tag & (0x1F if tag >= 0xA0 else 0x0F)
    if tag in NUMBERS:
        number, at = struct.unpack_from(f">{NUMBERS[tag]}", data, at)[0], at + struct.calcsize(NUMBERS[tag])
    if 0xCA <= tag <= 0xD3:
        return number, at
    if 0xA0 <= tag < 0xC0 or (tag in NUMBERS and tag < 0xDC):
        piece, at = data[at : at + number], at + number
        return piece if 0xC4 <= tag <= 0xC6 else piece.decode(), at
    if (tag >= 0x90 and tag not in NUMBERS) or depth > 1:
        raise ValueError(f"a value of type {tag:#x} has no place in it")
    fields: dict[str, Any] = {}
    for _ in range(number):
        name, at = _unpack(data, at, depth + 1)
        fields[name], at = _unpack(data, at, depth + 1)
    return fields, at


def pack(value: Any) -> bytes:
    """The shortest encoding."""
    if isinstance(value, int):
        if -32 <= value < 128:
            return struct.pack("b", value)
        size = next((size for size in range(3) if -(1 << (8 << size) - 1) <= value < 1 << (8 << size)), 3)
        return bytes([(0xCC if value > 0 else 0xD0) + size]) + value.to_bytes(1 << size, "big", signed=value < 0)
    short, limit, tag = SHAPES[type(value)]
    body = value.encode() if isinstance(value, str) else value
    length = len(body)
    if isinstance(value, dict | list):
        parts = value if isinstance(value, list) else itertools.chain.from_iterable(value.items())
        body = b"".join(map(pack, parts))
    if length < limit:
        return bytes([short | length]) + body
    size = (length > 0xFF or tag in {0xDB, 0xDD}) + (length > 0xFFFF)
    return bytes([tag + size]) + length.to_bytes(1 << size, "big") + body


# The tree (RFC 6962, section 2.1) and signed notes (c2sp.org/signed-note, c2sp.org/tlog-cosignature)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def roots_of(hashes: list[bytes], sizes: set[int]) -> dict[int, bytes]:
    """Of the trees of the first leaves, for those sizes that there are."""
    roots, peaks = {0: sha256(b"")}, list[tuple[int, bytes]]()
    for size, digest in enumerate(hashes, 1):
        peaks.append((1, digest))
        while len(peaks) > 1 and peaks[-2][0] == peaks[-1][0]:
            peaks[-2:] = [_joined(peaks[-1], peaks[-2])]
        if size in sizes:
            roots[size] = reduce(_joined, reversed(peaks))[1]
    return roots


def _joined(right: tuple[int, bytes], left: tuple[int, bytes]) -> tuple[int, bytes]:
    return left[0] + right[0], sha256(b"\1" + left[1] + right[1])


def signed_by(key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def from_base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


class Note(NamedTuple):
    text: str
    signatures: dict[tuple[str, bytes], bytes]
    """By name and identifier of the key."""

    @classmethod
    def read(cls, written: bytes) -> "Note":
        body, _, below = written.decode().rpartition("\n\n")
        lines = [(name, from_base64(value)) for _, name, value in map(str.split, below.split("\n")[:-1])]
        if below != "".join(f"\N{EM DASH} {name} {base64.b64encode(value).decode()}\n" for name, value in lines):
            raise ValueError("a note is not written as it should be")
        return cls(f"{body}\n", {(name, value[:4]): value[4:] for name, value in lines})

    def signed(self, name: str, kind: int, key: bytes) -> bool | None:
        """Whether the signature by this key is good; None where there is none."""
        signature = self.signatures.get((name, sha256(f"{name}\n".encode() + bytes([kind]) + key)[:4]))
        if signature is None or kind == ED25519:
            return None if signature is None else signed_by(key, self.text.encode(), signature)
        time = int.from_bytes(signature[:8], "big")
        return signed_by(key, f"cosignature/v1\ntime {time}\n{self.text}".encode(), signature[8:])


# What a bundle holds


class Keys(NamedTuple):
    """Of one party, as a bundle names them."""

    current: bytes
    identities: dict[bytes, bytes]
    """By their SHA-256: the current one and those before."""
    cosigners: list[tuple[str, int, bytes]]
    """Name, type and key: the present one and those before."""

    @classmethod
    def read(cls, named: dict[str, Any]) -> "Keys":
        identities = [from_base64(text) for text in [named["identity"], *named["earlier"]]]
        cosigners = [cosigner_of(text) for text in [named["cosigner"], *named["earlier_cosigners"]]]
        return cls(identities[0], {sha256(key): key for key in identities}, cosigners)

    def cosigned(self, note: Note) -> bool:
        return any(note.signed(*cosigner) for cosigner in self.cosigners)


def cosigner_of(verifier_key: str) -> tuple[str, int, bytes]:
    name, _, encoded = verifier_key.split("+", 2)
    return name, COSIGNATURE, from_base64(encoded)[1:]


class Head(NamedTuple):
    party: str
    size: int
    root: bytes
    note: Note

    @classmethod
    def read(cls, written: bytes) -> "Head":
        note = Note.read(written)
        origin, size, root = note.text.splitlines()
        return cls(origin.removesuffix("/audit-log"), int(size), from_base64(root), note)

    def signed(self, keys: Keys | None) -> bool:
        identities = keys.identities.values() if keys else ()
        return any(self.note.signed(f"{self.party}/audit-log", ED25519, key) for key in identities)


class Envelope(NamedTuple):
    """What a leaf says that was sent, received or refused."""

    leaf: int
    event: str
    is_counted: bool
    is_late: bool
    header: dict[str, Any]
    encoded: bytes
    """The header as it travelled."""
    digest: bytes
    signature: bytes

    @property
    def number(self) -> int:
        return int(self.header["sequence"])

    @property
    def lane(self) -> tuple[str, str, str, int]:
        """Sender, receiver, job, attempt."""
        return self.header["sender"], self.header["receiver"], self.header["job"], self.header["attempt"]

    def __str__(self) -> str:
        sender, receiver, job, attempt = self.lane
        return f"number {self.number} from {sender} to {receiver} in attempt {attempt} of job {job}"

    def is_second_to(self, first: str) -> str:
        what = f"{self.header['sender']} signed two envelopes as {self}, here and in {first}."
        return f"{what} Both are proof that it tells two stories."


class Bundle:
    """Raises one of UNREADABLE where a file is missing or cannot be read."""

    def __init__(self, folder: Path) -> None:
        paths = [path for path in folder.rglob("*") if path.is_file()]
        self.files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        named = json.loads(self.files["party.json"])
        self.party: str = named["party"]
        self.name = f"{folder} ({self.party})"
        self.keys = Keys.read(named)
        self.peers = {party: Keys.read(keys) for party, keys in named["peers"].items()}
        self.cosigners = [cosigner for keys in self.peers.values() for cosigner in keys.cosigners]
        of_peers = {name for name, _, _ in self.cosigners}  # no witness has the name of a peer's
        self.cosigners += [each for each in map(cosigner_of, named["witnesses"]) if each[0] not in of_peers]
        self.manifest = Note.read(self.files["manifest"])
        self.leaves = list(pieces(self.files["leaves.bin"]))
        self.hashes = [sha256(b"\0" + leaf) for leaf in self.leaves]
        self.heads = [*self._heads("checkpoints"), *self._heads("checkpoint")]
        self.roots = roots_of(self.hashes, {head.size for head in self.heads})
        self.cosigned = {head.party: head for head in self._heads("cosigned")}
        """The newest head of each peer that this party has cosigned."""
        self.receipts = json.loads(self.files["receipts.json"])
        self.envelopes: list[Envelope] = []
        """Sent and received, once the leaves have been checked."""
        self.decisions: dict[tuple[str, str], tuple[int, dict[str, Any]]] = {}
        """Then too, of each event and job the first leaf and its detail."""
        self.revealing: set[str] = set()
        """Jobs in which this party has revealed something, once budgets have been checked."""
        self.followers: dict[tuple[str, bytes], bytes] = {}
        """Of a party's key the one that follows it, by what both have signed; known with the leaves."""

    def _heads(self, file: str) -> list[Head]:
        parts = self.files[file].split(b"\n\n")
        pairs = zip(parts[::2], parts[1::2], strict=parts != [b""])
        return [Head.read(text + b"\n\n" + lines.rstrip(b"\n") + b"\n") for text, lines in pairs]

    def check(self, pinned: dict[str, bytes]) -> Iterator[Problem]:
        log = self.check_manifest(), self.check_tree(), self.check_heads(), self.check_leaves(), self.check_keys(pinned)
        jobs = self.check_lanes(), self.check_receipts(), self.check_budgets(), self.check_contracts()
        for leaf, text in itertools.chain(*log, *jobs, self.check_models()):
            yield Problem(self.name, leaf, text)

    def check_manifest(self) -> Findings:
        # (1) the manifest
        first, party, *lines = self.manifest.text.splitlines()
        named = {file: digest for digest, _, file in (line.partition("  ") for line in lines)}
        present = {file: sha256(data).hex() for file, data in self.files.items()}
        for file in sorted((named.keys() | present.keys()) - UNSIGNED_FILES):
            if named.get(file) != present.get(file):
                yield None, f"{file} is not the file of the manifest. It was changed after the export."
        signed = self.manifest.signed(f"{self.party}/audit-bundle", ED25519, self.keys.current)
        if not signed or (first, party, len(self.manifest.signatures)) != ("vfl-audit-bundle/v1", self.party, 1):
            yield None, f"{self.party} has not signed this manifest. Somebody else wrote or changed it."

    def check_tree(self) -> Findings:
        # (2) leaves and their hashes; (3) the root of the newest head
        newest, count, stated = self.heads[-1], len(self.leaves), self.files["hashes.bin"]
        logged = [stated[at : at + 32] for at in range(0, len(stated), 32)]
        if self.roots.get(newest.size) == newest.root and count == newest.size:
            if logged != self.hashes:
                yield None, "hashes.bin holds other hashes than the leaves have. The leaves are whole."
        elif len(logged) == newest.size and roots_of(logged, {newest.size})[newest.size] == newest.root:
            pairs = enumerate(zip(self.hashes, logged, strict=False))
            first = next((at for at, (digest, right) in pairs if digest != right), min(count, newest.size))
            what = "It is not the leaf that was logged" if first < count else "It is missing"
            yield first, f"{what}. The log was changed after its head of {newest.size} leaves was signed."
        else:
            good = max((head.size for head in self.heads if self.roots.get(head.size) == head.root), default=0)
            what = f"The {count} leaves are not those of the head of {newest.size} leaves."
            yield None, f"{what} The first {good} are; a later one, or the head, was changed."

    def check_heads(self) -> Findings:
        # (3) signature and cosignatures of the newest head; (4) all of it for earlier heads
        for older, head in zip([self.heads[0], *self.heads], self.heads, strict=False):
            if not head.signed(self.keys) or head.party != self.party:
                yield None, f"{self.party} has not signed the head of {head.size} leaves. It is not theirs."
            for cosigner in self.cosigners:
                if head.note.signed(*cosigner) is False:
                    what = f"{cosigner[0]} has cosigned another head than the one of {head.size} leaves."
                    yield None, f"{what} The log was changed after that."
            if older.size > head.size or (head is not self.heads[-1] and self.roots.get(head.size) != head.root):
                yield None, f"The log does not extend its head of {head.size} leaves: it was rewritten."
        for party, head in self.cosigned.items():
            if not head.signed(self.peers.get(party)) or not self.keys.cosigned(head.note):
                yield None, f"The head of {party} in `cosigned` is not signed by both. It was changed."

    def check_leaves(self) -> Findings:
        # (5) leaves; (6) signatures of envelopes; (9) two envelopes of one number
        firsts: dict[tuple[Any, ...], Envelope] = {}
        for index, encoded in enumerate(self.leaves):
            try:
                leaf = unpack(encoded)
                envelope = envelope_of(index, encoded, leaf, self.party)
                old, new = rotation_of(leaf, self.party) if leaf["event"] == "key_rotated" else (None, b"")
            except UNREADABLE as error:
                yield index, f"The leaf cannot be read: {error}. No honest log holds it."
                continue
            if old and self.followers.setdefault(old, new) != new:
                yield index, f"{old[0]} let two keys follow one. Somebody else holds that key."
            if envelope is None:
                self.decisions.setdefault((leaf["event"], leaf["job"]), (index, leaf["detail"]))
                continue
            sender = envelope.header["sender"]
            keys = self.keys_of(sender)
            key = keys.identities.get(envelope.header["key"], b"") if keys else b""
            signed = signed_by(key, ENVELOPE + envelope.encoded, envelope.signature)
            if envelope.event != "refused":
                self.envelopes.append(envelope)
                if not signed:
                    yield index, f"{sender} has not signed this envelope. Somebody else made or changed it."
            if signed and envelope.is_counted:
                first = firsts.setdefault((*envelope.lane, envelope.number), envelope)
                if first.digest != envelope.digest:
                    yield index, envelope.is_second_to(f"leaf {first.leaf}")

    def check_keys(self, pinned: dict[str, bytes]) -> Findings:
        # (6) keys that follow each other
        for key in self.keys.identities.values():
            if self.present_key(self.party, key) != self.keys.current:
                yield None, f"It names a key of {self.party} which the present one does not follow."
        present = {name: key for name, _, key in reversed(self.cosigners)}
        present |= {party: keys.current for party, keys in {**self.peers, self.party: self.keys}.items()}
        for name, key in present.items():
            if name in pinned and self.present_key(name, pinned[name]) != key:
                yield None, f"It names another key of {name} than you did, and proves nothing of them."

    def present_key(self, party: str, key: bytes) -> bytes:
        """The last of those that follow it."""
        for _ in self.followers:
            key = self.followers.get((party, key), key)
        return key

    def keys_of(self, party: str) -> Keys | None:
        return self.keys if party == self.party else self.peers.get(party)

    def check_lanes(self) -> Findings:
        # (7) numbers without a gap, each envelope names the one before
        due: dict[tuple[Any, ...], tuple[int, bytes]] = {}
        for envelope in self.envelopes:
            if envelope.is_counted and not envelope.is_late:
                number, previous = due.get(envelope.lane, (0, bytes(32)))
                due[envelope.lane] = envelope.number + 1, envelope.digest
                if (envelope.number, envelope.header["previous"]) != (number, previous):
                    what = f"It is {envelope}, where number {number} was due, or names another before it."
                    yield envelope.leaf, f"{what} An envelope is missing, comes twice or was changed."

    def check_receipts(self) -> Findings:
        # (8) receipts
        sent = {envelope.digest: envelope for envelope in self.envelopes if envelope.event == "sent"}
        for receipt in self.receipts:
            receiver, job, attempt, due = (receipt[name] for name in ("receiver", "job", "attempt", "next"))
            last, keys = bytes.fromhex(receipt["last"]), self.peers[receiver].identities.values()
            message = RECEIPT + pack([receiver, self.party, job, attempt, due, last])
            what = f"The receipt of {receiver} in attempt {attempt} of job {job}"
            if not any(signed_by(key, message, from_base64(receipt["signature"])) for key in keys):
                yield None, f"{what} is not signed by {receiver}. It was changed."
            of = sent.get(last)
            if due and (of is None or (*of.lane[1:], of.number + 1) != (receiver, job, attempt, due)):
                yield None, f"{what} is for an envelope that this log does not hold. It was removed."

    def check_budgets(self) -> Findings:
        # (10) what left against the budget; a message in parts is counted by its first
        sent = Counter[tuple[str, ...]]()
        for envelope in self.envelopes:
            (_, peer, job, _), kind = envelope.lane, envelope.header["kind"]
            approved, detail = self.decisions.get(("job_approved", job), (len(self.leaves), {}))
            budget = dict(line.split(":") for line in detail.get("budget", "").split())
            most = budget.get(kind, "0") if approved < envelope.leaf else "0"
            if envelope.event == "sent" and envelope.header["part"] == 1 and most != UNLIMITED and kind not in WORDS:
                self.revealing.add(job)
                sent[job, peer, kind] += 1
                if (count := sent[job, peer, kind]) > int(most):
                    what = f"It is message {count} of kind {kind} to {peer} in job {job}, and {most} are the most"
                    yield envelope.leaf, f"{what} that was approved. {self.party} has revealed more."

    def check_contracts(self) -> Findings:
        # (11) the specification of each job that began, and who has signed it
        began: dict[str, set[str]] = {}
        for envelope in self.envelopes:
            sender, receiver, job, _ = envelope.lane
            if envelope.header["kind"] == "Begin":
                began.setdefault(job, set()).update({sender, receiver})
            _, detail = self.decisions.get(("job_agreed", job), (0, {}))
            if (digest := envelope.header["job_digest"].hex()) != detail.get("specification", digest):
                yield envelope.leaf, f"It is {envelope}, under another specification than the one that was agreed."
        for (event, job), (leaf, detail) in self.decisions.items():
            encoded = self.files.get(f"contracts/{job}.specification")
            if event != "job_agreed" or (encoded is None and job not in self.revealing):
                continue  # a party may forget a job that came to nothing
            signed = json.loads(self.files.get(f"contracts/{job}.signatures", b"{}"))
            statement = CONTRACT + sha256(encoded or b"") + job.encode()
            if sha256(encoded or b"").hex() != detail["specification"]:
                yield leaf, f"contracts/{job}.specification is not what was agreed. It was changed; the log is whole."
            for party in sorted({self.party, *began.get(job, ()), *signed}):
                key, signature = map(from_base64, signed.get(party, ("", "")))
                keys = self.keys_of(party)
                is_known = keys is None or key in keys.identities.values()
                if not is_known or not signed_by(key, statement, signature):
                    yield leaf, f"{party} has not signed this contract of job {job}. It, or the signature, was changed."

    def check_models(self) -> Findings:
        # (12) manifests of models
        for file, data in self.files.items():
            if file.startswith("models/"):
                leaf, detail = self.decisions.get(("job_ended", Path(file).stem), (None, {}))
                if sha256(data).hex() != detail.get("manifest"):
                    what = f"{file} is not the manifest that was logged when the job ended. It was changed"
                    yield leaf, f"{what} at {self.party} after that; the log is whole."


def pieces(data: bytes) -> Iterator[bytes]:
    """What stands behind each length; at the end the rest as it is, if it is too short."""
    at = 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : end] if end <= len(data) else data[at:]
        at = end


def envelope_of(index: int, encoded: bytes, leaf: dict[str, Any], party: str) -> Envelope | None:
    """The envelope of a leaf, if it has one. Raises one of UNREADABLE."""
    event, peer, detail = leaf["event"], leaf["peer"], leaf["detail"]
    if pack(leaf) != encoded or [(name, type(value)) for name, value in leaf.items()] != list(LEAF.items()):
        raise ValueError("it is not encoded as it should be")
    if sorted(detail) != list(detail) or not {int, str}.issuperset(map(type, detail.values())) or leaf["version"] != 1:
        raise ValueError("it has details that are none, or another version")
    if event in OTHER_EVENTS or (event == "refused" and not leaf["header"]):
        if leaf["header"] or leaf["signature"]:
            raise ValueError("it has an envelope where none belongs")
        return None
    header = unpack(leaf["header"])
    if event not in ENVELOPE_EVENTS or {name: type(header[name]) for name in HEADER} != HEADER:
        raise ValueError("its event or its header is none")
    ends = (party, peer) if event == "sent" else (peer, party)
    if event != "refused" and (header["sender"], header["receiver"], header["job"]) != (*ends, leaf["job"]):
        raise ValueError("its header is that of another envelope")
    is_counted, digest = header["kind"] not in OUTSIDE_THE_COUNT, sha256(leaf["header"])
    return Envelope(index, event, is_counted, "late" in detail, header, leaf["header"], digest, leaf["signature"])


def rotation_of(leaf: dict[str, Any], me: str) -> tuple[tuple[str, bytes], bytes]:
    """Party, old key and the one that follows it. Raises one of UNREADABLE."""
    party, made_at = leaf["peer"] or me, leaf["detail"]["made_at"]
    names = ("old", "key", "cosigning", "by_old", "by_key")
    old, new, cosigning, by_old, by_new = (from_base64(leaf["detail"][name]) for name in names)
    statement = ROTATION + pack([party, old, new, cosigning, made_at])
    if not signed_by(old, statement, by_old) or not signed_by(new, statement, by_new):
        raise ValueError("the key that it names and the one before have not both signed that one follows the other")
    return (party, old), new


# Two bundles against each other


def compare_heads(mine: Bundle, other: Bundle) -> Iterator[Problem]:
    # (13) keys; (14) heads
    named, own = other.peers.get(mine.party), mine.keys
    named_keys, own_keys = ({*keys.identities.values(), *keys.cosigners} if keys else set() for keys in (named, own))
    if not named_keys or not named_keys <= own_keys:
        what = f"It names other keys of {mine.party} than {mine.party} does. One side was deceived."
        yield Problem(other.name, None, what)
    seen = other.cosigned.get(mine.party)
    if seen and roots_of(mine.hashes, {seen.size}).get(seen.size) != seen.root:
        what = f"The log does not extend the head of {seen.size} leaves that {other.party} has cosigned"
        yield Problem(mine.name, None, f"{what}: {OLDER}")
    size = max((head.size for head in mine.heads if other.keys.cosigned(head.note)), default=0)
    if size > (seen.size if seen else 0):
        what = f"{other.party} cosigned the head of {size} leaves of {mine.party}, and does not know it any more"
        yield Problem(other.name, None, f"{what}: {OLDER}")


def compare_envelopes(mine: Bundle, other: Bundle) -> Iterator[Problem]:
    # (15) what one has sent, the other has received; (9) two envelopes of one number
    sent = {each.digest: each for each in mine.envelopes if each.event == "sent" and each.lane[1] == other.party}
    received = {e.digest: e for e in other.envelopes if e.event == "received" and e.lane[0] == mine.party}
    counted = {(*each.lane, each.number): each for each in sent.values() if each.is_counted}
    for digest, envelope in received.items():
        twin = counted.get((*envelope.lane, envelope.number)) if envelope.is_counted else None
        if digest in sent and sent[digest].signature == envelope.signature:
            continue
        if digest in sent:
            what = f"It has another signature than leaf {sent[digest].leaf} of {mine.name}. One of them was changed."
        elif twin:
            what = envelope.is_second_to(f"leaf {twin.leaf} of {mine.name}")
        else:
            what = f"{mine.party} signed {envelope}, and its log does not hold it: {OLDER}"
        yield Problem(other.name, envelope.leaf, what)
    lanes: dict[tuple[Any, ...], list[Envelope]] = {}
    for envelope in counted.values():
        lanes.setdefault(envelope.lane, []).append(envelope)
    for last in (sent[digest] for receipt in mine.receipts if (digest := bytes.fromhex(receipt["last"])) in sent):
        for envelope in lanes[last.lane] if last.is_counted else [last]:
            if envelope.number <= last.number and envelope.digest not in received:
                what = f"{other.party} signed for {envelope}, and its log does not hold it: {OLDER}"
                yield Problem(mine.name, envelope.leaf, what)


def check_all(folders: list[Path], pinned: dict[str, bytes]) -> tuple[list[Bundle], list[Problem]]:
    """The bundles that could be read, and all that is wrong."""
    bundles, problems = list[Bundle](), list[Problem]()
    for folder in folders:
        try:
            bundles.append(Bundle(folder))
            problems += bundles[-1].check(pinned)
        except UNREADABLE as error:
            problems.append(Problem(str(folder), None, f"A file is missing or cannot be read: {error!r}."))
    for mine, other in itertools.permutations(bundles, 2):
        try:
            problems += [*compare_heads(mine, other), *compare_envelopes(mine, other)]
        except UNREADABLE as error:
            problems.append(Problem(mine.name, None, f"It cannot be compared: {error!r}."))
    named = {name for each in bundles for name, _, _ in each.cosigners}
    for name in pinned.keys() - named.union(*({each.party, *each.peers} for each in bundles)):
        what = f"No bundle names {name}, whose key you know: its name is written otherwise, or a party left it out."
        problems.append(Problem("--key", None, what))
    return bundles, problems


def main() -> int:
    parser = argparse.ArgumentParser(description="Check the audit logs of two parties against each other, or of one.")
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE", help="folder of an exported bundle")
    parser.add_argument("--key", action="append", default=[], metavar="NAME=BASE64", help="a key you know")
    arguments = parser.parse_args()
    try:
        pinned = {name: from_base64(key)[-32:] for name, _, key in (text.partition("=") for text in arguments.key)}
    except ValueError as error:
        parser.error(f"--key: {error}")
    if len(arguments.bundles) > 2:
        parser.error("name one bundle or two")
    bundles, problems = check_all(arguments.bundles, pinned)
    if len({bundle.party for bundle in bundles}) < len(bundles):
        parser.error("both bundles are of one party")
    if problems:
        # Stable: of each bundle, what names a leaf in the order in which it was found.
        for problem in sorted(problems, key=lambda problem: problem.leaf is None)[:PROBLEMS_SHOWN]:
            say(str(problem))
        say(f"NOT verified. Problems: {len(problems)}. The first bad leaf stands first, where one is known.")
        return 1
    for bundle in bundles:
        seen = {key[0]: head.size for head in bundle.heads for key in bundle.cosigners if head.note.signed(*key)}
        cosigned = ", ".join(f"up to leaf {size} by {name}" for name, size in seen.items()) or "by nobody"
        models = sum(file.startswith("models/") for file in bundle.files)
        held = f"{len(bundle.leaves)} leaves, {len(bundle.envelopes)} envelopes, manifests of models: {models}"
        say(f"{bundle.name}: {held}, cosigned {cosigned}")
    heads = " and ".join(f"{bundle.party} {bundle.heads[-1].root.hex()}" for bundle in bundles)
    alone = "; that its peers received and sent the same (name a peer's bundle too)" if len(bundles) == 1 else ""
    keys = "" if {bundle.party for bundle in bundles} <= set(pinned) else "; whose the keys are (name them with --key)"
    say(f"Verified, heads: {heads}. NOT proven: {NOT_PROVEN}{alone}{keys}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
