"""A worker's only link to the world: frames of u32 length and one MessagePack struct, over one pipe each way.

Both ends speak closed unions, so neither can say what the other does not expect. Nothing is ever unpickled.
"""

import contextlib
import fcntl
import os
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from parties.worker.mapped_rows import mapped
from vfl.reports import CheckpointReached, Fact, Outcome
from vfl.requests import ScoreRequest
from vfl.spec.sections import PartyId

PIPE_BYTES = 1 << 20
"""What the kernel holds for a reader that is not there yet; asked for where the platform lets us."""


class Frame(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """One thing said over the pipe."""


class RawIds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    hashes: bytes
    """ids x 64."""
    rows: bytes
    """int64, of each id its row in the file."""


class RawTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rows: int
    columns: bytes | int
    """float64, rows x columns, or the descriptor of a file that holds them."""
    labels: bytes | None
    """float64, rows; where this table has labels."""
    ids_digest: bytes
    classes: tuple[str, ...] = ()
    """What this party calls its classes."""
    ids: RawIds | None = None
    """Of a table whose ids are compared."""
    words: dict[int, tuple[str, ...]] = {}
    """What the codes of a column of categories stand for, by its position."""
    split_keys: bytes | None = None
    """float64, rows; by which rows are held out, where the job asks this party for it."""

    @property
    def matrix(self) -> NDArray[np.float64]:
        """rows x columns."""
        numbers = mapped(self.columns) if isinstance(self.columns, int) else np.frombuffer(self.columns, np.float64)
        return numbers.reshape(self.rows, -1 if len(numbers) else 0)


class ClusterTerms(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A Dask cluster of this party's own; the files are PEM."""

    scheduler: str
    ca: str
    certificate: str
    key: str


class PoolTerms(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a worker does heavy work."""

    processes: int = 0
    """0 = as many as it may use cores."""
    cluster: ClusterTerms | None = None


class Start(Frame, frozen=True):
    """To the worker, first and once: everything a role is given."""

    spec: bytes
    me: PartyId
    tables: dict[str, RawTable]
    """By use, as the specification says what this party brings."""
    model: bytes
    """The registered model that the job starts from or applies, as far as this party holds it; empty for none."""
    joint_seed: bytes
    private_seed: bytes
    bottom: str
    """`FILE.py:FUNCTION` of this party's own bottom module; empty when party.toml names none."""
    saved: bytes = b""
    """The checkpoint that the role goes on from; empty begins anew."""
    transcripts: dict[PartyId, bytes] = {}
    """What had been said with each peer by then."""
    pool: PoolTerms = PoolTerms()


class Delivered(Frame, frozen=True):
    """To the worker: a peer's message, still encoded."""

    sender: PartyId
    kind: str
    body: memoryview


class Left(Frame, frozen=True):
    """To the worker: a peer the job can do without is away; whoever waits for it is answered at once."""

    peer: PartyId


class Returned(Frame, frozen=True):
    """To the worker: that peer starts afresh; what it had said before is dropped."""

    peer: PartyId


class Requested(Frame, frozen=True):
    """To the worker: what this party's operator asks."""

    request: ScoreRequest


class NoMoreRequests(Frame, frozen=True):
    """To the worker: the operator asks nothing more; requests before it are still answered."""


class OutgoingMessage(Frame, frozen=True):
    """From the worker: a message for a peer, encoded."""

    to: PartyId
    kind: str
    body: memoryview


class Reported(Frame, frozen=True):
    """From the worker: a fact for its own party."""

    fact: Fact


class Checkpointed(Frame, frozen=True):
    """From the worker: it can go on from here. Read before any later message of the role."""

    reached: CheckpointReached
    transcripts: dict[PartyId, bytes]
    """What has been said with each peer by now."""


class Finished(Frame, frozen=True):
    """From the worker: the role returned."""

    outcome: Outcome


class Failed(Frame, frozen=True):
    """From the worker: an exception left the role. An empty code is a bug; its traceback is in the worker's log."""

    code: str
    message: str
    safe: str
    fix: str
    peer: PartyId = ""
    """Whose fault it is, where it is a peer's."""


WorkerInput: TypeAlias = Delivered | Left | Returned | Requested | NoMoreRequests
"""What reaches a running worker."""
ToWorker: TypeAlias = Start | WorkerInput
FromWorker: TypeAlias = OutgoingMessage | Reported | Checkpointed | Finished | Failed

F = TypeVar("F")


class FrameReader(Generic[F]):
    """The reading end; blocks until a whole frame is there."""

    def __init__(self, descriptor: int, kinds: Any) -> None:
        self._descriptor = descriptor
        self._decoder: msgspec.msgpack.Decoder[F] = msgspec.msgpack.Decoder(kinds)
        enlarge(descriptor)

    def read(self) -> F | None:
        """The next frame; None when the other end has closed. Raises msgspec.DecodeError for anything unexpected."""
        length = self._exactly(4)
        if length is None:
            return None
        frame = self._exactly(int.from_bytes(length, "big"))
        return None if frame is None else self._decoder.decode(frame)

    def _exactly(self, count: int) -> bytearray | None:
        buffer = bytearray(count)
        view, filled = memoryview(buffer), 0
        while filled < count:
            read = os.readv(self._descriptor, [view[filled:]])
            if read == 0:
                return None
            filled += read
        return buffer


class FrameWriter:
    """The writing end; blocks while the kernel's buffer is full. Raises OSError when the other end has closed."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._encoder = msgspec.msgpack.Encoder()
        enlarge(descriptor)

    def write(self, frame: Frame) -> None:
        encoded = self._encoder.encode(frame)
        pieces = [memoryview(len(encoded).to_bytes(4, "big")), memoryview(encoded)]
        while pieces:
            written = os.writev(self._descriptor, pieces)
            while pieces and written >= len(pieces[0]):
                written -= len(pieces.pop(0))
            if pieces:
                pieces[0] = pieces[0][written:]


def take_pipe() -> tuple[int, int]:
    """Move the pipe away from stdin and stdout, so that a stray print goes to the log and not into a frame."""
    incoming, outgoing = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    return incoming, outgoing


def enlarge(descriptor: int) -> None:
    """Fewer turns between the two processes for bodies of megabytes; only Linux has the call, and it may say no."""
    with contextlib.suppress(OSError, AttributeError):
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
