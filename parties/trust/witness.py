"""A witness of another party's log: what it is asked, what it checks before it signs, what it answers.

    POST <prefix>/add-checkpoint     c2sp.org/tlog-witness

The caller stores the new head in the transaction in which it has read the old one, and only then answers.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from parties.trust.errors import MalformedNote, RewrittenLog, StaleHead, UnknownLog
from parties.trust.merkle import is_consistent
from parties.trust.notes import (
    Checkpoint,
    Note,
    SignatureLine,
    VerifierKey,
    parse_number,
    parse_path,
    path_lines,
    read_lines,
)

SIZE_TYPE = "text/x.tlog.size"
"""Content type of the answer to StaleHead: the size of the newest head that was signed, and a newline."""


@dataclass(frozen=True, slots=True)
class WitnessStanding:
    """How a witness of this party's log stands to it, as the operator reads it."""

    name: str
    url: str
    cosigned: int
    """How many leaves the newest head counts that it has cosigned."""
    problem: str
    """Why it has not cosigned a newer one; empty where nothing is wrong."""
    contradicts: bool
    """Whether it has cosigned another log than there is here: then no new job begins."""


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """Sign this head: it extends the one of `old_size`, as `path` shows."""

    old_size: int
    path: tuple[bytes, ...]
    checkpoint: Note

    def __str__(self) -> str:
        return f"old {self.old_size}\n{path_lines(self.path)}\n{self.checkpoint}"

    @classmethod
    def parse(cls, encoded: bytes) -> Self:
        """Raises MalformedNote."""
        head, _, note = encoded.partition(b"\n\n")
        old, *path = read_lines(head + b"\n")
        request = cls(parse_number(old.removeprefix("old ")), parse_path(path), Note.parse(note))
        if str(request).encode() != encoded:
            raise MalformedNote("the first line does not name the old size")
        Checkpoint.parse(request.checkpoint.text)
        return request


def check(request: AddCheckpoint, log: VerifierKey | None, newest: Checkpoint | None) -> Checkpoint:
    """The head to store and to sign. `log` is the key of that log, `newest` its head that was signed last.

    Raises UnknownLog, NoteNotSigned, MalformedNote, StaleHead, RewrittenLog.
    """
    head = Checkpoint.parse(request.checkpoint.text)
    if log is None or log.name != head.origin:
        raise UnknownLog(f"no log named {head.origin!r:.200} is known here")
    request.checkpoint.verify(log)
    if request.old_size > head.size:
        raise MalformedNote(f"the head of size {head.size} cannot extend one of size {request.old_size}")
    size = newest.size if newest else 0
    if request.old_size != size:
        raise StaleHead(f"the newest head of {head.origin} that was signed here has size {size}", size)
    if newest and not is_consistent(size, head.size, request.path, newest.root, head.root):
        same = head.size == size
        raise RewrittenLog(f"the log {head.origin} does not extend its head of size {size}", of_same_size=same)
    if not newest and request.path:
        raise MalformedNote("a proof from size 0 is empty")
    return head


def add_cosignatures(checkpoint: Note, answer: bytes, witnesses: Iterable[VerifierKey]) -> Note:
    """The checkpoint with those lines of a witness's answer that are by known keys.

    Raises MalformedNote; NoteNotSigned where a known key's line is not over this checkpoint.
    """
    keys = {(key.name, key.key_id): key for key in witnesses}
    for line in map(SignatureLine.parse, read_lines(answer)):
        if line.by in keys:
            keys[line.by].verify(checkpoint.text, line)
            checkpoint = checkpoint.signed(line)
    return checkpoint
