"""Check the audit logs of two parties, or of one: without network, without their software, on any computer.

    python verifier.py BUNDLE [PEER_BUNDLE] [--key PARTY=BASE64 ...]

Needs Python 3.11 and the package `cryptography`. `--key` names a party's identity key as you know it from elsewhere.
Exit code: 0 if all of this holds, 1 if something does not, 2 for wrong arguments.

Each bundle alone
  1  the manifest, signed by the party's identity key, names every file and its SHA-256
  2  each leaf has the hash that was logged
  3  their tree (RFC 6962) has the root of the newest head; the head's signature and cosignatures are good
  4  the same holds for each earlier head: the log only grew
  5  each leaf is written as it should be, and fits the header of its envelope
  6  each envelope is signed by the key of its sender
  7  in each job, attempt and direction envelopes are numbered without a gap, and each names the one before it; what
     ends a job or asks about it stands outside the count, and so does what came late
  8  what a peer has signed as received, this party has sent
  9  nobody has signed two envelopes of one number
Two bundles against each other
  10 each names the other's keys as the other does
  11 each log still has the head that the other cosigned last, and no cosignature was forgotten
  12 what one has a receipt for, the other has received; what one has received, the other has sent
Not checked yet
  13 opened values against the budget that the leaf `job_agreed` names
"""

import argparse
import base64
import hashlib
import itertools
import json
import struct
import sys
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

LEAF = {"version": int, "time_ms": int, "event": str, "job": str, "peer": str, "header": bytes, "signature": bytes}
LEAF |= {"detail": dict}
HEADER = {"sender": str, "receiver": str, "job": str, "kind": str, "attempt": int, "sequence": int, "previous": bytes}
HEADER |= {"key": bytes}
ENVELOPE_EVENTS = {"sent", "received", "refused"}
OTHER_EVENTS = {"peer_added", "peer_removed", "key_rotated", "grant_created", "grant_revoked", "job_agreed"}
OTHER_EVENTS |= {"job_approved", "job_rejected", "job_ended", "exported", "restored"}
OUTSIDE_THE_COUNT = {"Finish", "Abort", "Refusal", "Ask"}
ENVELOPE_DOMAIN, RECEIPT_DOMAIN = b"vfl-envelope-v1\0", b"vfl-receipt-v1\0"
UNSIGNED_FILES = {"manifest", "README.txt", "verifier.py"}
ED25519, COSIGNATURE = 1, 4
PROBLEMS_SHOWN = 20
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, OverflowError, OSError, struct.error)
OLDER = "the party removed it, or its bundle is the older one: then export both again"
NOT_PROVEN = (
    "that data and labels are true; what happens inside a party; how much the messages revealed; what a party leaves"
    " out of its log after the newest head that another has cosigned"
)


class Problem(NamedTuple):
    bundle: str
    leaf: int | None
    text: str

    def __str__(self) -> str:
        return f"{self.bundle}{'' if self.leaf is None else f', leaf {self.leaf}'}: {self.text}"


def say(text: str) -> None:
    """Names come from bundles: none of their letters may steer a terminal."""
    print("".join(letter if letter.isprintable() else " " for letter in text))


# MessagePack, as far as leaves, headers and receipts need it

NUMBERS = {0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q"}
NUMBERS |= {0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
LENGTHS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4, 0xDE: 2, 0xDF: 4}
SHAPES: dict[type, tuple[int, int, int]] = {
    bytes: (0, 0, 0xC4),
    str: (0xA0, 32, 0xD9),
    list: (0x90, 16, 0xDB),
    dict: (0x80, 16, 0xDD),
}
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
        return tag - (0x100 if tag >= 0xE0 else 0), at
    if tag in NUMBERS:
        return struct.unpack_from(NUMBERS[tag], data, at)[0], at + struct.calcsize(NUMBERS[tag])
    if tag in LENGTHS:
        length, at = int.from_bytes(data[at : at + LENGTHS[tag]], "big"), at + LENGTHS[tag]
    else:
        length = tag & (0x1F if tag >= 0xA0 else 0x0F)
    if 0xA0 <= tag < 0xC0 or 0xC4 <= tag < 0xDE:
        piece = data[at : at + length]
        return piece if tag < 0xA0 or 0xC4 <= tag <= 0xC6 else piece.decode(), at + length
    if (0x90 <= tag < 0xDE) or depth > 1:
        raise ValueError(f"a value of type {tag:#x} has no place in it")
    found: dict[str, Any] = {}
    for _ in range(length):
        name, at = _unpack(data, at, depth + 1)
        found[name], at = _unpack(data, at, depth + 1)
    return found, at


def pack(value: Any) -> bytes:
    """The shortest encoding."""
    if isinstance(value, int):
        if -32 <= value < 128:
            return struct.pack("b", value)
        size = next((size for size in range(3) if -(1 << (8 << size) - 1) <= value < 1 << (8 << size)), 3)
        return bytes([(0xCC if value > 0 else 0xD0) + size]) + value.to_bytes(1 << size, "big", signed=value < 0)
    short, below, tag = SHAPES[type(value)]
    if isinstance(value, dict | list):
        parts = value if isinstance(value, list) else [part for pair in value.items() for part in pair]
        length, body = len(value), b"".join(map(pack, parts))
    else:
        body = value.encode() if isinstance(value, str) else value
        length = len(body)
    if length < below:
        return bytes([short | length]) + body
    size = (length > 0xFF or tag in {0xDB, 0xDD}) + (length > 0xFFFF)
    return bytes([tag + size]) + length.to_bytes(1 << size, "big") + body


# The tree (RFC 6962, section 2.1) and signed notes (c2sp.org/signed-note, c2sp.org/tlog-cosignature)


def roots_of(hashes: list[bytes], sizes: set[int]) -> dict[int, bytes]:
    """Of the trees of the first leaves, for those sizes that there are."""
    roots, peaks = {0: hashlib.sha256().digest()}, list[tuple[int, bytes]]()
    for size, digest in enumerate(hashes, 1):
        peaks.append((1, digest))
        while len(peaks) > 1 and peaks[-2][0] == peaks[-1][0]:
            peaks[-2:] = [_joined(peaks[-1], peaks[-2])]
        if size in sizes:
            roots[size] = reduce(_joined, reversed(peaks))[1]
    return roots


def _joined(right: tuple[int, bytes], left: tuple[int, bytes]) -> tuple[int, bytes]:
    return left[0] + right[0], hashlib.sha256(b"\1" + left[1] + right[1]).digest()


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
        lines = [line.split(" ") for line in below.split("\n")[:-1]]
        again = "".join(
            f"\N{EM DASH} {name} {base64.b64encode(from_base64(value)).decode()}\n" for _, name, value in lines
        )
        if again != below:
            raise ValueError("a note is not written as it should be")
        return cls(f"{body}\n", {(name, from_base64(value)[:4]): from_base64(value)[4:] for _, name, value in lines})

    def signed(self, name: str, kind: int, key: bytes) -> bool | None:
        """Whether the signature by this key is good; None where there is none."""
        identifier = hashlib.sha256(f"{name}\n".encode() + bytes([kind]) + key).digest()[:4]
        if (signature := self.signatures.get((name, identifier))) is None:
            return None
        if kind == ED25519:
            return signed_by(key, self.text.encode(), signature)
        time = int.from_bytes(signature[:8], "big")
        return signed_by(key, f"cosignature/v1\ntime {time}\n{self.text}".encode(), signature[8:])


# What a bundle holds


class Keys(NamedTuple):
    """Of one party, as a bundle names them."""

    current: bytes
    identities: dict[bytes, bytes]
    """By their SHA-256: the current one and those before."""
    cosigner: tuple[str, int, bytes]
    """Name, type and key."""

    @classmethod
    def read(cls, named: dict[str, Any]) -> "Keys":
        current, *earlier = (from_base64(text) for text in [named["identity"], *named["earlier"]])
        by_digest = {hashlib.sha256(key).digest(): key for key in [current, *earlier]}
        return cls(current, by_digest, cosigner_of(named["cosigner"]))


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
        self.cosigners = [*(keys.cosigner for keys in self.peers.values()), *map(cosigner_of, named["witnesses"])]
        self.manifest = Note.read(self.files["manifest"])
        self.leaves = list(pieces(self.files["leaves.bin"]))
        self.hashes = [hashlib.sha256(b"\0" + leaf).digest() for leaf in self.leaves]
        self.heads = [*self._heads("checkpoints"), *self._heads("checkpoint")]
        self.roots = roots_of(self.hashes, {head.size for head in self.heads})
        self.cosigned = {head.party: head for head in self._heads("cosigned")}
        """The newest head of each peer that this party has cosigned."""
        self.receipts = json.loads(self.files["receipts.json"])
        self.envelopes: list[Envelope] = []
        """Sent and received, once the leaves have been checked."""

    def _heads(self, file: str) -> list[Head]:
        parts = self.files[file].split(b"\n\n")
        pairs = zip(parts[::2], parts[1::2], strict=parts != [b""])
        return [Head.read(text + b"\n\n" + lines.rstrip(b"\n") + b"\n") for text, lines in pairs]

    def problem(self, leaf: int | None, text: str) -> Problem:
        return Problem(self.name, leaf, text)

    def check(self, pinned: dict[str, bytes]) -> Iterator[Problem]:
        yield from self.check_manifest(pinned)
        yield from self.check_tree()
        yield from self.check_heads()
        yield from self.check_leaves()
        yield from self.check_lanes()
        yield from self.check_receipts()

    def check_manifest(self, pinned: dict[str, bytes]) -> Iterator[Problem]:
        # (1) the manifest
        first, party, *lines = self.manifest.text.splitlines()
        named = {file: digest for digest, _, file in (line.partition("  ") for line in lines)}
        found = {file: hashlib.sha256(data).hexdigest() for file, data in self.files.items()}
        for file in sorted((named.keys() | found.keys()) - UNSIGNED_FILES):
            if named.get(file) != found.get(file):
                yield self.problem(None, f"{file} is not the file of the manifest. It was changed after the export.")
        signed = self.manifest.signed(f"{self.party}/audit-bundle", ED25519, self.keys.current)
        if not signed or (first, party, len(self.manifest.signatures)) != ("vfl-audit-bundle/v1", self.party, 1):
            yield self.problem(None, f"{self.party} has not signed this manifest. Somebody else wrote or changed it.")
        for name, keys in {self.party: self.keys, **self.peers}.items():
            if pinned.get(name, keys.current) != keys.current:
                yield self.problem(None, f"It names another key of {name} than you did, and proves nothing of them.")

    def check_tree(self) -> Iterator[Problem]:
        # (2) leaves and their hashes; (3) the root of the newest head
        newest, count, stated = self.heads[-1], len(self.leaves), self.files["hashes.bin"]
        logged = [stated[at : at + 32] for at in range(0, len(stated), 32)]
        if self.roots.get(newest.size) == newest.root and count == newest.size:
            if logged != self.hashes:
                yield self.problem(None, "hashes.bin holds other hashes than the leaves have. The leaves are whole.")
        elif len(logged) == newest.size and roots_of(logged, {newest.size})[newest.size] == newest.root:
            pairs = enumerate(zip(self.hashes, logged, strict=False))
            first = next((at for at, (found, right) in pairs if found != right), min(count, newest.size))
            what = "It is not the leaf that was logged" if first < count else "It is missing"
            yield self.problem(first, f"{what}. The log was changed after its head of {newest.size} leaves was signed.")
        else:
            good = max((head.size for head in self.heads if self.roots.get(head.size) == head.root), default=0)
            what = f"The {count} leaves are not those of the head of {newest.size} leaves."
            yield self.problem(None, f"{what} The first {good} are; a later one, or the head, was changed.")

    def check_heads(self) -> Iterator[Problem]:
        # (3) signature and cosignatures of the newest head; (4) all of it for earlier heads
        for older, head in zip([self.heads[0], *self.heads], self.heads, strict=False):
            if not head.signed(self.keys) or head.party != self.party:
                yield self.problem(
                    None, f"{self.party} has not signed the head of {head.size} leaves. It is not theirs."
                )
            for cosigner in self.cosigners:
                if head.note.signed(*cosigner) is False:
                    what = f"{cosigner[0]} has cosigned another head than the one of {head.size} leaves."
                    yield self.problem(None, f"{what} The log was changed after that.")
            if older.size > head.size or (head is not self.heads[-1] and self.roots.get(head.size) != head.root):
                yield self.problem(None, f"The log does not extend its head of {head.size} leaves: it was rewritten.")
        for party, head in self.cosigned.items():
            if not head.signed(self.peers.get(party)) or not head.note.signed(*self.keys.cosigner):
                yield self.problem(None, f"The head of {party} in `cosigned` is not signed by both. It was changed.")

    def check_leaves(self) -> Iterator[Problem]:
        # (5) leaves; (6) signatures of envelopes; (9) two envelopes of one number
        seen: dict[tuple[Any, ...], Envelope] = {}
        for index, encoded in enumerate(self.leaves):
            try:
                envelope = read_leaf(index, encoded, self.party)
            except UNREADABLE as error:
                yield self.problem(index, f"The leaf cannot be read: {error}. No honest log holds it.")
                continue
            if envelope is None:
                continue
            sender = envelope.header["sender"]
            keys = self.keys if sender == self.party else self.peers.get(sender)
            key = keys.identities.get(envelope.header["key"], b"") if keys else b""
            signed = signed_by(key, ENVELOPE_DOMAIN + envelope.encoded, envelope.signature)
            if envelope.event != "refused":
                self.envelopes.append(envelope)
                if not signed:
                    yield self.problem(
                        index, f"{sender} has not signed this envelope. Somebody else made or changed it."
                    )
            if signed and envelope.is_counted:
                first = seen.setdefault((*envelope.lane, envelope.number), envelope)
                if first.digest != envelope.digest:
                    yield self.problem(index, two_stories(envelope, f"leaf {first.leaf}"))

    def check_lanes(self) -> Iterator[Problem]:
        # (7) numbers without a gap, each envelope names the one before
        due: dict[tuple[Any, ...], tuple[int, bytes]] = {}
        for envelope in self.envelopes:
            if envelope.is_counted and not envelope.is_late:
                number, previous = due.get(envelope.lane, (0, bytes(32)))
                due[envelope.lane] = envelope.number + 1, envelope.digest
                if (envelope.number, envelope.header["previous"]) != (number, previous):
                    what = f"It is {envelope}, where number {number} was due, or names another before it."
                    yield self.problem(envelope.leaf, f"{what} An envelope is missing, comes twice or was changed.")

    def check_receipts(self) -> Iterator[Problem]:
        # (8) receipts
        sent = {envelope.digest: envelope for envelope in self.envelopes if envelope.event == "sent"}
        for receipt in self.receipts:
            receiver, job, attempt, due = (receipt[name] for name in ("receiver", "job", "attempt", "next"))
            last, keys = bytes.fromhex(receipt["last"]), self.peers[receiver].identities.values()
            message = RECEIPT_DOMAIN + pack([receiver, self.party, job, attempt, due, last])
            what = f"The receipt of {receiver} in attempt {attempt} of job {job}"
            if not any(signed_by(key, message, from_base64(receipt["signature"])) for key in keys):
                yield self.problem(None, f"{what} is not signed by {receiver}. It was changed.")
            of = sent.get(last)
            if due and (of is None or (*of.lane[1:], of.number + 1) != (receiver, job, attempt, due)):
                yield self.problem(None, f"{what} is for an envelope that this log does not hold. It was removed.")


def pieces(data: bytes) -> Iterator[bytes]:
    """What stands behind each length; at the end the rest as it is, if it is too short."""
    at = 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : end] if end <= len(data) else data[at:]
        at = end


def read_leaf(index: int, encoded: bytes, party: str) -> Envelope | None:
    """The envelope of a leaf, if it has one. Raises one of UNREADABLE."""
    leaf = unpack(encoded)
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
    is_counted, digest = header["kind"] not in OUTSIDE_THE_COUNT, hashlib.sha256(leaf["header"]).digest()
    return Envelope(index, event, is_counted, "late" in detail, header, leaf["header"], digest, leaf["signature"])


def two_stories(envelope: Envelope, where: str) -> str:
    sender = envelope.header["sender"]
    return (
        f"{sender} signed two envelopes as {envelope}, here and in {where}. Both are proof that it tells two stories."
    )


# Two bundles against each other


def compare_heads(mine: Bundle, other: Bundle) -> Iterator[Problem]:
    # (10) keys; (11) heads
    named, own = other.peers.get(mine.party), mine.keys
    if named is None or named.cosigner != own.cosigner or not named.identities.items() <= own.identities.items():
        yield other.problem(None, f"It names other keys of {mine.party} than {mine.party} does. One side was deceived.")
    seen = other.cosigned.get(mine.party)
    if seen and roots_of(mine.hashes, {seen.size}).get(seen.size) != seen.root:
        what = f"The log does not extend the head of {seen.size} leaves that {other.party} has cosigned"
        yield mine.problem(None, f"{what}: {OLDER}")
    size = max((head.size for head in mine.heads if head.note.signed(*other.keys.cosigner)), default=0)
    if size > (seen.size if seen else 0):
        what = f"{other.party} cosigned the head of {size} leaves of {mine.party}, and does not know it any more"
        yield other.problem(None, f"{what}: {OLDER}")


def compare_envelopes(mine: Bundle, other: Bundle) -> Iterator[Problem]:
    # (12) what one has sent, the other has received; (9) two envelopes of one number
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
            what = two_stories(envelope, f"leaf {twin.leaf} of {mine.name}")
        else:
            what = f"{mine.party} signed {envelope}, and its log does not hold it: {OLDER}"
        yield other.problem(envelope.leaf, what)
    lanes: dict[tuple[Any, ...], list[Envelope]] = {}
    for envelope in counted.values():
        lanes.setdefault(envelope.lane, []).append(envelope)
    for last in (sent[digest] for receipt in mine.receipts if (digest := bytes.fromhex(receipt["last"])) in sent):
        for envelope in lanes[last.lane] if last.is_counted else [last]:
            if envelope.number <= last.number and envelope.digest not in received:
                what = f"{other.party} signed for {envelope}, and its log does not hold it: {OLDER}"
                yield mine.problem(envelope.leaf, what)


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
            problems.append(mine.problem(None, f"It cannot be compared: {error!r}."))
    return bundles, problems


def main() -> int:
    parser = argparse.ArgumentParser(description="Check the audit logs of two parties against each other, or of one.")
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE", help="folder of an exported bundle")
    parser.add_argument("--key", action="append", default=[], metavar="PARTY=BASE64", help="an identity key you know")
    arguments = parser.parse_args()
    try:
        pinned = {name: from_base64(key) for name, _, key in (text.partition("=") for text in arguments.key)}
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
        say(f"{bundle.name}: {len(bundle.leaves)} leaves, {len(bundle.envelopes)} envelopes, cosigned {cosigned}")
    heads = " and ".join(f"{bundle.party} {bundle.heads[-1].root.hex()}" for bundle in bundles)
    alone = "; that its peers received and sent the same (name a peer's bundle too)" if len(bundles) == 1 else ""
    keys = "" if {bundle.party for bundle in bundles} <= set(pinned) else "; whose the keys are (name them with --key)"
    say(f"Verified, heads: {heads}. NOT proven: {NOT_PROVEN}{alone}{keys}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
