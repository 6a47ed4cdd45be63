"""Signed notes, checkpoints, cosignatures and proof files, as C2SP specifies them: nothing of these formats is ours.

    signed note    c2sp.org/signed-note        a text, a blank line, a line for each signature
    verifier key   c2sp.org/signed-note        NAME+ID+BASE64 of the type of signature and the key
    checkpoint     c2sp.org/tlog-checkpoint    a note whose text is origin, size and root of a log
    cosignature    c2sp.org/tlog-cosignature   a line of a checkpoint by which a witness says what it has seen, and when
    proof          c2sp.org/tlog-proof         one leaf's index and path to the root, and the checkpoint

Strict: what is read is written again and must give the same bytes, so each note, key and proof has one encoding.
Types of signature: Ed25519 over the text (0x01), and Ed25519 cosignatures with a time (0x04). Others are ignored.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Self, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from parties.trust.errors import MalformedNote, NoteNotSigned
from parties.trust.merkle import HASH_BYTES

NOTE_LIMIT = 128 << 10
SIGNATURES_LIMIT = 32
"""A reader takes at least 16 (c2sp.org/signed-note)."""
PROOF_HEADER = "c2sp.org/tlog-proof@v1"
_PATH_LIMIT = 63
_KEY_BYTES, _ID_BYTES, _TIME_BYTES, _SIGNATURE_BYTES = 32, 4, 8, 64
_LATEST = 2**63 - 1

Sign: TypeAlias = Callable[[bytes], bytes]
"""An Ed25519 signature over these bytes, with nothing put before them."""


class SignatureType(IntEnum):
    ED25519 = 0x01
    COSIGNATURE = 0x04


@dataclass(frozen=True, slots=True)
class SignatureLine:
    """By the key of this name and id; what `value` holds depends on the key's type."""

    name: str
    key_id: bytes
    value: bytes

    @property
    def by(self) -> tuple[str, bytes]:
        """What tells the key from all others."""
        return self.name, self.key_id

    def __str__(self) -> str:
        return f"\N{EM DASH} {self.name} {_to_base64(self.key_id + self.value)}\n"

    @classmethod
    def parse(cls, line: str) -> Self:
        """One line without its end. Raises MalformedNote."""
        dash, _, rest = line.partition(" ")
        name, _, encoded = rest.rpartition(" ")
        value = _from_base64(encoded)
        if dash != "\N{EM DASH}" or not _is_name(name) or len(value) <= _ID_BYTES:
            raise MalformedNote("a line below the text of a note is not a signature")
        return cls(name, value[:_ID_BYTES], value[_ID_BYTES:])


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key, the name it signs under, and the type of its signatures."""

    name: str
    type: SignatureType
    public: bytes
    """32 bytes (RFC 8032)."""

    @property
    def key_id(self) -> bytes:
        return hashlib.sha256(f"{self.name}\n".encode() + self._type_and_key).digest()[:_ID_BYTES]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{_to_base64(self._type_and_key)}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises MalformedNote."""
        name, *rest = text.split("+", 2)
        try:
            material = _from_base64(rest[1])
            key = cls(name, SignatureType(material[0]), material[1:])
            Ed25519PublicKey.from_public_bytes(key.public)
        except (ValueError, IndexError) as error:
            raise MalformedNote(f"{text!r:.200} is not a verifier key of a type known here") from error
        if not _is_name(name) or str(key) != text:
            raise MalformedNote(f"{text!r:.200} is not a verifier key as it is written")
        return key

    def sign(self, text: str, sign: Sign) -> SignatureLine:
        """The line that this key puts under a note, made by its private half."""
        return SignatureLine(self.name, self.key_id, sign(text.encode()))

    def cosign(self, checkpoint: str, time: int, sign: Sign) -> SignatureLine:
        """The line of a witness that has seen no larger tree of this log at this time, in Unix seconds."""
        signature = sign(_cosigned(checkpoint, time))
        return SignatureLine(self.name, self.key_id, time.to_bytes(_TIME_BYTES, "big") + signature)

    def verify(self, text: str, line: SignatureLine) -> None:
        """Raises NoteNotSigned."""
        message, signature = text.encode(), line.value
        if self.type is SignatureType.COSIGNATURE:
            message, signature = _cosigned(text, cosigned_at(line)), line.value[_TIME_BYTES:]
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except InvalidSignature as error:
            raise NoteNotSigned(f"the signature of {self.name} does not belong to this note") from error

    @property
    def _type_and_key(self) -> bytes:
        return bytes([self.type]) + self.public


@dataclass(frozen=True, slots=True)
class Note:
    text: str
    """With its last newline."""
    signatures: tuple[SignatureLine, ...] = ()

    def __str__(self) -> str:
        return f"{self.text}\n{''.join(map(str, self.signatures))}"

    @classmethod
    def parse(cls, encoded: bytes) -> Self:
        """Raises MalformedNote. Nothing of the text may be believed before `verify`."""
        text = _decode(encoded)
        body, _, lines = text.rpartition("\n\n")
        note = cls(f"{body}\n", tuple(map(SignatureLine.parse, lines[:-1].split("\n"))))
        keys = {line.by for line in note.signatures}
        if str(note) != text:
            raise MalformedNote("a note has no text above its signatures")
        if not len(keys) == len(note.signatures) <= SIGNATURES_LIMIT:
            raise MalformedNote(f"a note has two signatures by one key, or more than {SIGNATURES_LIMIT}")
        return note

    def signed(self, line: SignatureLine) -> Self:
        """The same note with one more signature; an older one by the same key goes."""
        others = tuple(old for old in self.signatures if old.by != line.by)
        return replace(self, signatures=(*others, line))

    def is_signed_by(self, key: VerifierKey) -> bool:
        """Whether it has a line by this key, good or not."""
        return any(line.by == (key.name, key.key_id) for line in self.signatures)

    def verify(self, key: VerifierKey) -> SignatureLine:
        """The line by this key. Raises NoteNotSigned where there is none, or where it is not over this text."""
        for line in self.signatures:
            if line.by == (key.name, key.key_id):
                key.verify(self.text, line)
                return line
        raise NoteNotSigned(f"the note is not signed by {key.name}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log says it holds."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The text of its note."""
        return "".join(f"{line}\n" for line in (self.origin, self.size, _to_base64(self.root), *self.extensions))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The text of a note. Raises MalformedNote."""
        try:
            origin, size, root, *extensions = text.removesuffix("\n").split("\n")
            checkpoint = cls(origin, parse_number(size), _hash_of(root), tuple(extensions))
        except ValueError as error:
            raise MalformedNote("a checkpoint has an origin, a size and a root, each on its line") from error
        if str(checkpoint) != text or not all((origin, *extensions)):
            raise MalformedNote("a line of a checkpoint is empty")
        return checkpoint


@dataclass(frozen=True, slots=True)
class Proof:
    """That one leaf stands in a log; its holder needs the leaf beside it."""

    index: int
    path: tuple[bytes, ...]
    checkpoint: Note
    extra: bytes = b""
    """Of no authority: nobody has signed it."""

    def __str__(self) -> str:
        extra = f"extra {_to_base64(self.extra)}\n" if self.extra else ""
        return f"{PROOF_HEADER}\n{extra}index {self.index}\n{path_lines(self.path)}\n{self.checkpoint}"

    @classmethod
    def parse(cls, encoded: bytes) -> Self:
        """Raises MalformedNote."""
        head, _, note = encoded.partition(b"\n\n")
        header, *lines = read_lines(head + b"\n")
        extra = lines.pop(0).removeprefix("extra ") if lines and lines[0].startswith("extra ") else ""
        if not lines:
            raise MalformedNote("a proof does not name the index of its leaf")
        index, path = lines[0].removeprefix("index "), lines[1:]
        proof = cls(parse_number(index), parse_path(path), Note.parse(note), _from_base64(extra))
        if header != PROOF_HEADER or str(proof).encode() != encoded:
            raise MalformedNote("a proof file has a line too much, or one that is not as it should be written")
        Checkpoint.parse(proof.checkpoint.text)
        return proof


def cosigned_at(line: SignatureLine) -> int:
    """When a cosignature was made, in Unix seconds. Raises MalformedNote."""
    time = int.from_bytes(line.value[:_TIME_BYTES], "big")
    if len(line.value) != _TIME_BYTES + _SIGNATURE_BYTES or time > _LATEST:
        raise MalformedNote(f"the signature of {line.name} is not a cosignature")
    return time


def read_lines(encoded: bytes) -> list[str]:
    """One or more lines, without their ends. Raises MalformedNote."""
    return _decode(encoded)[:-1].split("\n")


def parse_number(text: str) -> int:
    """Raises MalformedNote."""
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(_LATEST))) or str(int(text)) != text:
        raise MalformedNote(f"{text!r:.40} is not a number as it is written")
    return int(text)


def path_lines(path: tuple[bytes, ...]) -> str:
    return "".join(f"{_to_base64(digest)}\n" for digest in path)


def parse_path(lines: list[str]) -> tuple[bytes, ...]:
    """Raises MalformedNote."""
    if len(lines) > _PATH_LIMIT:
        raise MalformedNote(f"a proof of {len(lines)} hashes fits no tree")
    return tuple(map(_hash_of, lines))


def _cosigned(checkpoint: str, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n{checkpoint}".encode()


def _decode(encoded: bytes) -> str:
    """A text that ends its last line. Raises MalformedNote."""
    try:
        text = encoded.decode()
    except UnicodeDecodeError as error:
        raise MalformedNote("a note is not UTF-8") from error
    if len(encoded) > NOTE_LIMIT or not text.endswith("\n") or any(c < " " and c != "\n" for c in text):
        raise MalformedNote("a note is too long, does not end its last line, or has a control character")
    return text


def _is_name(name: str) -> bool:
    return bool(name) and not any(letter.isspace() or letter == "+" for letter in name)


def _hash_of(text: str) -> bytes:
    """Raises MalformedNote."""
    digest = _from_base64(text)
    if len(digest) != HASH_BYTES:
        raise MalformedNote(f"a hash has {len(digest)} bytes, not {HASH_BYTES}")
    return digest


def _to_base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _from_base64(text: str) -> bytes:
    """Of the one encoding: a bit that nobody reads is refused. Raises MalformedNote."""
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedNote(f"{text!r:.80} is not base64") from error
    if _to_base64(value) != text:
        raise MalformedNote(f"{text!r:.80} is not base64 as it is written")
    return value
