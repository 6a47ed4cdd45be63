"""Checkpoints of jobs that are not over: from these a run goes on after a crash, and nobody else reads them.

checkpoints/<job>/000000000120       after step 120: its name on the link to each peer, then what the role goes on with

A checkpoint is written whole or not at all, and is on the disk before any later message of its role leaves: the worker
says both over one pipe, in order. So whoever has a message of a later step knows that its sender has stored it, and a
party that stores its next checkpoint knows that of every peer. Therefore the newest two are kept, and one of them is
common to all parties (docs/reliability.md).
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec

from parties.errors import StorageFailed
from parties.private_files import write_private
from parties.wire.control import CheckpointName
from vfl.spec.sections import PartyId

CHECKPOINTS = "checkpoints"
KEPT = 2
DIGEST_BYTES = 32

Names = Mapping[PartyId, CheckpointName]
"""Of one checkpoint, what it is called on the link to each peer."""


class Checkpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    step: int
    epoch: int
    """How many epochs were over."""
    names: dict[PartyId, CheckpointName]
    state: bytes

    @property
    def transcripts(self) -> dict[PartyId, bytes]:
        """What had been said with each peer by then."""
        return {peer: name.transcript for peer, name in self.names.items()}


class CheckpointStore:
    """Used under the lock of the job's supervisor."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / CHECKPOINTS

    def keep(self, job: str, checkpoint: Checkpoint) -> None:
        """Raises StorageFailed."""
        path, encoded = self._path(job, checkpoint.step), msgspec.msgpack.encode(checkpoint)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_private(path, hashlib.sha256(encoded).digest() + encoded)
            _sync(path.parent)
        except OSError as error:
            raise StorageFailed(f"{path} cannot be written: {error.strerror}") from error
        with contextlib.suppress(OSError):
            for old in self._files(job)[:-KEPT]:
                old.unlink()

    def held(self, job: str) -> dict[int, Names]:
        """By step, those that can be read."""
        read = (_read(path) for path in self._files(job))
        return {checkpoint.step: checkpoint.names for checkpoint in read if checkpoint is not None}

    def checkpoint(self, job: str, step: int) -> Checkpoint:
        """Raises StorageFailed where it cannot be read any more."""
        checkpoint = _read(self._path(job, step))
        if checkpoint is None:
            raise StorageFailed(f"{self._path(job, step)} cannot be read: it is not what was written")
        return checkpoint

    def drop_after(self, job: str, step: int) -> None:
        """A run goes on from this step: what came of the steps after it does not count any more."""
        for path in self._files(job):
            if path > self._path(job, step):
                path.unlink(missing_ok=True)

    def drop(self, job: str) -> None:
        """The job is over."""
        with contextlib.suppress(OSError):
            shutil.rmtree(self._folder / job)

    def _files(self, job: str) -> list[Path]:
        """The oldest first, without what was half written when the server was killed."""
        return sorted(path for path in (self._folder / job).glob("[0-9]*"))

    def _path(self, job: str, step: int) -> Path:
        return self._folder / job / f"{step:012}"


def _read(path: Path) -> Checkpoint | None:
    try:
        stored = path.read_bytes()
        if hashlib.sha256(stored[DIGEST_BYTES:]).digest() != stored[:DIGEST_BYTES]:
            return None
        return msgspec.msgpack.decode(stored[DIGEST_BYTES:], type=Checkpoint)
    except (OSError, msgspec.DecodeError):
        return None


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
