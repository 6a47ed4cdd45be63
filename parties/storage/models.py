"""This party's half of each model on its own disk: safetensors bytes, a manifest beside them, states as it trains.

models/<job>/epochs/epoch-0001.safetensors   as each epoch ends; of a large model the last ones only
models/<job>/rounds/round-000001             the last rounds this party took part in, as its role holds them
models/<job>/model.safetensors               when the role has returned
models/<job>/result.json                     then too: what it measured, for this party alone
models/<job>/scores.csv                      of a prediction, at the party that reads the scores
models/<job>/manifest.json                   when every party is done; a model without one does not count
"""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors

from parties.errors import StorageFailed
from parties.model_errors import ModelChanged, UnknownModel
from parties.private_files import write_private
from parties.storage.manifest import MANIFEST, NO_INPUTS, Inputs
from vfl.errors import JobError, LocalProtocolError

MODELS = "models"
ROUNDS_KEPT = EPOCHS_KEPT = 3
"""States that are kept however large the model is."""
EPOCH_BYTES = 32 << 20
"""States of more epochs are kept as long as all together have no more than this: of most models all of them."""
WEIGHTS_FILE, RESULT_FILE, MANIFEST_FILE = "model.safetensors", "result.json", "manifest.json"
SCORES_FILE = "scores.csv"
CHECKPOINTS = ("epochs", "rounds")
HEADER_LENGTH_BYTES = 8


class ModelStore:
    def __init__(self, folder: Path) -> None:
        self._folder = folder / MODELS

    def model_path(self, job: str) -> Path:
        return self._folder / job / WEIGHTS_FILE

    def scores_path(self, job: str) -> Path:
        return self._folder / job / SCORES_FILE

    def keep_scores(self, job: str, table: bytes) -> None:
        """What a prediction tells of each row, as CSV. Raises StorageFailed."""
        self._write(self.scores_path(job), table)

    def keep_epoch(self, job: str, epoch: int, state: bytes) -> Path:
        """The newest states, epochs coming in turn: there are as many, and a peer may have chosen the model's size.

        Raises LocalProtocolError for bytes that are not safetensors, StorageFailed when they cannot be written.
        """
        weights_digest(state)
        count = max(EPOCHS_KEPT, EPOCH_BYTES // len(state))
        with contextlib.suppress(OSError):
            self._epoch_path(job, epoch - count).unlink(missing_ok=True)
        return self._write(self._epoch_path(job, epoch), state)

    def keep_round(self, job: str, number: int, state: bytes) -> None:
        """The newest states only: there are as many as rounds. Raises StorageFailed."""
        folder = self._folder / job / "rounds"
        self._write(folder / f"round-{number:06}", state)
        with contextlib.suppress(OSError):
            for old in sorted(folder.glob("round-*"))[:-ROUNDS_KEPT]:
                old.unlink()

    def keep_model(
        self, job: str, state: bytes, result: Mapping[str, Any], inputs: Inputs = NO_INPUTS
    ) -> dict[str, Any]:
        """Write this party's half and what came of it, and answer the latter with its weights digest.

        It does not count before `seal`, and outlives a restart until then. Raises as `keep_epoch`.
        """
        whole_result = {"model_digest": weights_digest(state), **result}
        self._write(self.model_path(job), with_inputs(state, inputs) if inputs.columns else state)
        self._write(self._folder / job / RESULT_FILE, json.dumps(whole_result).encode())
        return whole_result

    def put_half(self, job: str, files: Mapping[str, bytes]) -> None:
        """Store the files of a finished job by name, the manifest last: without it they do not count."""
        for name in (WEIGHTS_FILE, RESULT_FILE, MANIFEST_FILE):
            self._write(self._folder / job / name, files[name])

    def result(self, job: str) -> dict[str, Any] | None:
        """What came of a job whose role has returned; None where none is kept."""
        try:
            result: dict[str, Any] = json.loads((self._folder / job / RESULT_FILE).read_text())
        except (OSError, ValueError):
            return None
        return result

    def seal(self, job: str, finished_at: str) -> str:
        """The model counts from here on; answers the SHA-256 of its manifest, hex. Raises StorageFailed.

        The manifest names the digest of the weights and that of the result, so its own stands for all three files.
        """
        path = self._folder / job / RESULT_FILE
        try:
            stored = path.read_bytes()
        except OSError as error:
            raise StorageFailed(f"{path} cannot be read: {error.strerror}") from error
        result = json.loads(stored)
        shown = {name: result[name] for name in MANIFEST if name in result}
        shown |= {"measures_digest": hashlib.sha256(stored).hexdigest(), "finished_at": finished_at}
        data = f"{json.dumps(shown, indent=2, sort_keys=True)}\n".encode()
        self._write(self._folder / job / MANIFEST_FILE, data)
        return hashlib.sha256(data).hexdigest()

    def manifest(self, job: str) -> bytes | None:
        """As it lies on disk; None where it does not, or no longer."""
        try:
            return (self._folder / job / MANIFEST_FILE).read_bytes()
        except OSError:
            return None

    def manifests(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Of every finished job, by its id."""
        for path in self._folder.glob(f"*/{MANIFEST_FILE}"):
            with contextlib.suppress(OSError, ValueError):
                yield path.parent.name, json.loads(path.read_text())

    def model(self, digest: str, manifests: Mapping[str, str]) -> bytes:
        """A finished model by its weights digest; `manifests` holds, by job, the digest that was stored of the manifest
        of each such model.

        Raises UnknownModel, ModelChanged where one lies here that was changed.
        """
        error: JobError = UnknownModel(f"model.first_model: this party's registry holds no model {digest!r}")
        for job, manifest_digest in manifests.items():
            if self.manifest(job) is not None:
                try:
                    return self.intact(job, manifest_digest)[1]
                except ModelChanged as changed:
                    error = changed
        raise error

    def intact(self, job: str, manifest_digest: str = "") -> tuple[dict[str, Any], bytes]:
        """(What came of a finished job, its weights), as they were stored when it ended.

        `manifest_digest` is that of the manifest, where it is known. Raises ModelChanged, naming the file.
        """
        stored = self.manifest(job) or b""
        if manifest_digest and hashlib.sha256(stored).hexdigest() != manifest_digest:
            raise self._changed(self._folder / job / MANIFEST_FILE)
        with contextlib.suppress(OSError, ValueError, LocalProtocolError):
            manifest = json.loads(stored)
            result = (self._folder / job / RESULT_FILE).read_bytes()
            if hashlib.sha256(result).hexdigest() != manifest.get("measures_digest"):
                raise self._changed(self._folder / job / RESULT_FILE)
            state = self.model_path(job).read_bytes()
            if weights_digest(state) == manifest.get("model_digest"):
                return json.loads(result), state
        raise self._changed(self.model_path(job))

    def half(self, job: str, manifest_digest: str) -> dict[str, bytes]:
        """The files of a finished job by name. Raises as `intact`."""
        self.intact(job, manifest_digest)
        return {name: (self._folder / job / name).read_bytes() for name in (WEIGHTS_FILE, RESULT_FILE, MANIFEST_FILE)}

    def _changed(self, path: Path) -> ModelChanged:
        return ModelChanged(f"{path} is not what this party stored when the job ended")

    def discard(self, job: str) -> bool:
        """Drop the final model of a job that failed; answers whether states of its epochs stay, as checkpoints.

        On a disk that takes no change the model may stay too; without its manifest it does not count.
        """
        folder = self._folder / job
        has_checkpoints = any((folder / name).is_dir() for name in CHECKPOINTS)
        with contextlib.suppress(OSError):
            (folder / MANIFEST_FILE).unlink(missing_ok=True)
            (folder / RESULT_FILE).unlink(missing_ok=True)
            self.model_path(job).unlink(missing_ok=True)
            self.scores_path(job).unlink(missing_ok=True)
            for half_written in folder.rglob(".*"):  # the server was killed while it wrote
                half_written.unlink()
            if folder.is_dir() and not has_checkpoints:
                shutil.rmtree(folder)
        return has_checkpoints

    def _epoch_path(self, job: str, epoch: int) -> Path:
        return self._folder / job / "epochs" / f"epoch-{epoch:04}.safetensors"

    def _write(self, path: Path, data: bytes) -> Path:
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_private(path, data)
        except OSError as error:
            raise StorageFailed(f"{path} cannot be written: {error.strerror}") from error
        return path


def with_inputs(state: bytes, inputs: Inputs) -> bytes:
    """Safetensors bytes with the names of columns and label as metadata: the weights and their digest stay the same."""
    end = HEADER_LENGTH_BYTES + int.from_bytes(state[:HEADER_LENGTH_BYTES], "little")
    metadata = {"columns": json.dumps(inputs.columns, ensure_ascii=False)} | (
        {"label": inputs.label} if inputs.label else {}
    )
    header = json.loads(state[HEADER_LENGTH_BYTES:end])
    header["__metadata__"] = header.get("__metadata__", {}) | metadata
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % HEADER_LENGTH_BYTES)  # tensors begin at a multiple of eight
    return len(text).to_bytes(HEADER_LENGTH_BYTES, "little") + text + state[end:]


def weights_digest(state: bytes) -> str:
    """SHA-256 over the weights alone, hex: names in order, type, shape and bytes, each with its length before it."""
    try:
        tensors = sorted(safetensors.deserialize(state))  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise LocalProtocolError(f"the role's state is not safetensors: {error}") from error
    digest = hashlib.sha256()
    for name, tensor in tensors:
        for part in (
            name.encode(),
            tensor["dtype"].encode(),
            repr(list(tensor["shape"])).encode(),
            bytes(tensor["data"]),
        ):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()
