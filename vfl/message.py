"""What a message is: a closed msgspec struct that says what its receiver can read out of it, and its bytes.

The messages themselves stand in `messages.py`. They are encoded as MessagePack; a body is decoded only in the
receiver's worker process. Arrays travel as raw little-endian bytes: NaN or a wrong length is the role's to judge.
"""

import enum
import functools
from collections.abc import Iterable
from typing import ClassVar, NamedTuple, Self

import msgspec

from vfl.errors import RemoteProtocolError


class Grain(enum.Enum):
    """What one revealed value is about."""

    NOTHING = "nothing"
    ROW = "per row"
    SUM = "sum over a batch"
    TABLE = "whole table"
    MODEL = "whole model"


class Source(enum.Enum):
    """Which columns of its sender's table a revealed value is computed from."""

    NO_COLUMN = "no column"
    LABEL = "the label"
    EVERY_COLUMN = "every column of the job, and the label"


class Reveals(msgspec.Struct, frozen=True):
    """One line of the table "what each side could see"."""

    learns: str
    grain: Grain
    protection: str = ""
    source: Source = Source.EVERY_COLUMN


MESSAGES: dict[str, "type[Message]"] = {}
"""Every message by its kind; a class enters when it is made."""


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Anything that crosses. A subclass without `reveals` cannot be made."""

    reveals: ClassVar[Reveals]
    is_vouched: ClassVar[bool] = False
    """Whether its sender's server signs it, for parties to whom its receiver hands it on: `own_word`, `vouched`."""
    hands_on: ClassVar[bool] = False
    """Whether it hands on what other parties have signed: `handed_on`."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if not isinstance(cls.__dict__.get("reveals"), Reveals):
            raise TypeError(f"the message {cls.kind()} does not say what it reveals")
        if cls.kind() in MESSAGES:
            raise TypeError(f"there are two messages of kind {cls.kind()}")
        MESSAGES[cls.kind()] = cls

    @classmethod
    def kind(cls) -> str:
        """The name that stands in the envelope's header."""
        return cls.__name__

    def own_word(self, sender: str) -> "HandedOn":
        """What its sender has signed, or is to sign."""
        raise NotImplementedError

    def vouched(self, signature: bytes) -> Self:
        """The same message with its signature."""
        raise NotImplementedError

    def handed_on(self) -> Iterable["HandedOn"]:
        """What other parties have signed, each for itself."""
        raise NotImplementedError


class HandedOn(NamedTuple):
    party: str
    kind: str
    """Of the message that the party has signed."""
    statement: bytes
    signature: bytes


_ENCODER = msgspec.msgpack.Encoder()


@functools.cache
def _decoder(message: type[Message]) -> msgspec.msgpack.Decoder[Message]:
    return msgspec.msgpack.Decoder(message)


def encode(message: Message) -> bytes:
    return _ENCODER.encode(message)


def decode(sender: str, kind: str, body: bytes | memoryview) -> Message:
    """A body as the message its envelope names. Raises RemoteProtocolError for anything else."""
    if kind not in MESSAGES:
        raise RemoteProtocolError(f"{sender} sent a message of the unknown kind {kind!r}")
    try:
        return _decoder(MESSAGES[kind]).decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # the second: text that is not UTF-8
        raise RemoteProtocolError(f"the {kind} of {sender} cannot be read: {error}") from error
