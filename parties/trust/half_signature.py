"""What a party signs of a half of a model that it exports: a signed note (c2sp.org/signed-note) that names every file.

    vfl-model-half/v1
    PARTY
    training JOB
    audit log entry N        the leaf by which the party has logged the manifest
    key VERIFIER-KEY         of the identity key that signs
    SHA-256  FILE            of each file, sorted by name

A note has one encoding, so no bit of it can change unseen. It proves that the holder of the key it names has exported
these files; whose key that is, the reader knows from elsewhere: from the party's fingerprint, or because it is its own.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from parties.trust.errors import MalformedNote
from parties.trust.identity import Identity, IdentityKey
from parties.trust.log_keys import half_key
from parties.trust.notes import Note, VerifierKey, parse_number

HEADER = "vfl-model-half/v1"
_TRAINING, _ENTRY, _KEY = "training ", "audit log entry ", "key "
_FILE = re.compile(r"([0-9a-f]{64})  ([a-z.]+)")


@dataclass(frozen=True, slots=True)
class HalfSignature:
    party: str
    training: str
    log_entry: int
    """Number of the leaf of the party's audit log that names the manifest."""
    key: IdentityKey
    digests: Mapping[str, str]
    """SHA-256 of each file, hex."""

    @classmethod
    def parse(cls, encoded: bytes) -> Self:
        """Raises MalformedNote, NoteNotSigned."""
        note = Note.parse(encoded)
        lines = note.text.removesuffix("\n").split("\n")
        starts = (HEADER, "", _TRAINING, _ENTRY, _KEY)
        if len(lines) < len(starts) or not all(map(str.startswith, lines, starts)):
            raise MalformedNote("the note is not one about a half of a model")
        _, party, training, entry, key = (line.removeprefix(start) for line, start in zip(lines, starts, strict=False))
        files = [_FILE.fullmatch(line) for line in lines[len(starts) :]]
        signer = VerifierKey.parse(key)
        signature = cls(
            party,
            training,
            parse_number(entry),
            IdentityKey(signer.public),
            {match[2]: match[1] for match in files if match is not None},
        )
        if signature.text != note.text or len(note.signatures) != 1:
            raise MalformedNote("the note about a half of a model is not written as it should be")
        note.verify(half_key(party, signer.public))
        return signature

    def signed(self, identity: Identity) -> bytes:
        """By the key that it names, which is that of this identity."""
        line = half_key(self.party, identity.key.raw).sign(self.text, identity.private.sign)
        return str(Note(self.text).signed(line)).encode()

    @property
    def text(self) -> str:
        key = half_key(self.party, self.key.raw)
        head = (HEADER, self.party, f"{_TRAINING}{self.training}", f"{_ENTRY}{self.log_entry}", f"{_KEY}{key}")
        lines = (*head, *(f"{self.digests[name]}  {name}" for name in sorted(self.digests)))
        return "".join(f"{line}\n" for line in lines)
