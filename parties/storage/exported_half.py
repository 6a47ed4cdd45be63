"""A half of a model outside its party's server: a folder with its files, and the party's signature over all of them.

model.safetensors     the weights, and how the party's own columns are prepared
manifest.json         as it was logged when the training ended: columns, digests of specification, weights, result
result.json           what the party measured, and the values of its label
specification.json    of the training, as all parties agreed to it
signature             parties.trust.half_signature
"""

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from parties.model_errors import ModelChanged
from parties.storage.models import MANIFEST_FILE, RESULT_FILE, WEIGHTS_FILE, weights_digest
from parties.trust.errors import MalformedNote, NoteNotSigned
from parties.trust.half_signature import HalfSignature
from parties.trust.identity import Identity
from vfl.errors import JobError, LocalProtocolError
from vfl.kinds import spec_of
from vfl.spec.job import JobSpec

SPECIFICATION_FILE, SIGNATURE_FILE = "specification.json", "signature"
SIGNED_FILES = frozenset({WEIGHTS_FILE, MANIFEST_FILE, RESULT_FILE, SPECIFICATION_FILE})
FILE_BYTES = 1 << 30
"""More than any half has: a file beyond is not read."""
EXPORT_AGAIN = "Take an intact copy of it, or export it again at the server that holds the model."


def signed_files(files: Mapping[str, bytes], training: str, log_entry: int, me: Identity) -> dict[str, bytes]:
    """The files of an exported half by name, the signature among them."""
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    signature = HalfSignature(me.name, training, log_entry, me.key, digests)
    return {**files, SIGNATURE_FILE: signature.signed(me)}


@dataclass(frozen=True)
class ExportedHalf:
    """Its files are as the holder of the key in `signature` has exported them, and belong together."""

    signature: HalfSignature
    spec: JobSpec
    manifest: dict[str, Any]
    result: dict[str, Any]
    files: Mapping[str, bytes] = field(repr=False)
    """By name, as they lie in the folder."""

    @property
    def party(self) -> str:
        return self.signature.party

    @property
    def training(self) -> str:
        return self.signature.training

    @classmethod
    def read(cls, folder: Path, *, safe: str) -> "ExportedHalf":
        """Raises ModelChanged, which names the file; `safe` says what did not happen."""
        if not os.path.isdir(folder):  # noqa: PTH112 - Path.is_dir raises on a name that is too long
            raise ModelChanged(
                f"{folder} is no folder",
                safe=safe,
                fix="Name the folder of an exported half, absolute or as seen from the folder of the party.",
            )
        files = {name: _read(folder / name, safe) for name in (SIGNATURE_FILE, *sorted(SIGNED_FILES))}
        try:
            signature = HalfSignature.parse(files[SIGNATURE_FILE])
        except (MalformedNote, NoteNotSigned, ValueError) as error:
            text = f"{folder / SIGNATURE_FILE} is not the signature of an exported half: {error}"
            raise ModelChanged(text, safe=safe, fix=EXPORT_AGAIN) from error
        for name in sorted(SIGNED_FILES | signature.digests.keys()):
            if name not in files or hashlib.sha256(files[name]).hexdigest() != signature.digests.get(name):
                raise _changed(folder / name, f"what {signature.party} has signed", safe)
        manifest, result = _document(files, MANIFEST_FILE, folder, safe), _document(files, RESULT_FILE, folder, safe)
        try:
            spec = spec_of(json.loads(files[SPECIFICATION_FILE]))
        except (JobError, msgspec.DecodeError, ValueError, RecursionError) as error:
            raise ModelChanged(
                f"{folder / SPECIFICATION_FILE} cannot be read by this release: {error}",
                safe=safe,
                fix="Use the release that exported it, or one that follows it and reads its specifications.",
            ) from error
        for name, digest, stated in (
            (SIGNATURE_FILE, (signature.party, signature.training), (manifest.get("party"), manifest.get("job"))),
            (WEIGHTS_FILE, _digest_of_weights(files[WEIGHTS_FILE]), manifest.get("model_digest")),
            (RESULT_FILE, hashlib.sha256(files[RESULT_FILE]).hexdigest(), manifest.get("measures_digest")),
            (SPECIFICATION_FILE, spec.digest().hex(), manifest.get("spec_digest")),
        ):
            if digest != stated:
                raise _changed(folder / name, "what its manifest names", safe)
        return cls(signature, spec, manifest, result, files)


def _read(path: Path, safe: str) -> bytes:
    """A folder of somebody else may hold a pipe that nobody writes, or a device without an end, under any name."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > FILE_BYTES:
                text = f"{path} is no file of a half: it is no regular file, or has more than {FILE_BYTES} bytes"
                raise ModelChanged(text, safe=safe, fix=EXPORT_AGAIN)
            return file.read(FILE_BYTES)
    except (OSError, ValueError) as error:  # the second: a zero byte in its name
        reason = error.strerror if isinstance(error, OSError) else error
        text = f"{path} cannot be read: {reason}. An exported half has it"
        raise ModelChanged(text, safe=safe, fix=EXPORT_AGAIN) from error


def _document(files: Mapping[str, bytes], name: str, folder: Path, safe: str) -> dict[str, Any]:
    """Whoever signs a folder of their own may have put anything there."""
    try:
        document = json.loads(files[name])
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise _changed(folder / name, "a JSON object", safe)
    return document


def _digest_of_weights(weights: bytes) -> str:
    """Empty for what is no safetensors file."""
    try:
        return weights_digest(weights)
    except LocalProtocolError:
        return ""


def _changed(path: Path, due: str, safe: str) -> ModelChanged:
    return ModelChanged(f"{path} is not {due}", safe=safe, fix=EXPORT_AGAIN)
