"""The models of which this party holds its half, as its operator sees them, and one of them to take away."""

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sql

from parties.model_errors import ForeignModel, ModelChanged, ModelKnown, UnknownModel
from parties.storage.database import Job, Store
from parties.storage.exported_half import SPECIFICATION_FILE, ExportedHalf, signed_files
from parties.storage.models import MANIFEST_FILE, ModelStore
from parties.storage.passed import AUDIT_LOG
from parties.trust.leaves import Event, decode
from parties.trust.signer import Signer
from vfl.kinds import decode_spec
from vfl.notices import Notice
from vfl.spec.job import JobSpec

NOT_IMPORTED = "Nothing was imported."
_LOGGED = (Event.JOB_ENDED, Event.MODEL_IMPORTED)


class TrainedModel(msgspec.Struct, frozen=True, kw_only=True):
    training: str
    """The id of the job that trained it, which is the same at all parties and names the model."""
    name: str
    protocol: str
    task: str
    party: str
    role: str
    peers: list[str]
    columns: list[str]
    """This party's own."""
    label: str
    classes: list[str]
    metrics: dict[str, float]
    spec_digest: str
    model_digest: str
    """Of this party's half alone."""
    manifest_digest: str
    finished_at: str
    predictions: list[str]
    """Ids of the predictions with it that are done here, the newest first."""


class TrainedModels:
    def __init__(self, me: Signer, store: Store, models: ModelStore) -> None:
        self._signer, self._store, self._models = me, store, models
        self._importing = threading.Lock()

    def all(self) -> list[TrainedModel]:
        """The newest first."""
        held = list(self._held())
        applied: dict[str, list[str]] = {}
        for job, _ in held:
            applied.setdefault(_applied_by(job), []).append(job.id)
        return [_model(job, manifest, applied.get(job.id, [])) for job, manifest in held if _has_learned(job)]

    def get(self, training: str) -> TrainedModel:
        """Raises UnknownModel."""
        for model in self.all():
            if model.training == training:
                return model
        raise UnknownModel(f"this party holds no model of a training {training!r}")

    def applied(self, training: str) -> tuple[JobSpec, bytes]:
        """(The specification of a training, this party's weights). Raises UnknownModel, ModelChanged."""
        model = self.get(training)
        weights = self._models.intact(training, model.manifest_digest)[1]
        return decode_spec(self._store.agreed(training)[0]), weights

    def archive(self, training: str) -> bytes:
        """A ZIP of the half as this party exports and signs it. Raises UnknownModel, ModelChanged."""
        model = self.get(training)
        specification = json.dumps(msgspec.to_builtins(decode_spec(self._store.agreed(training)[0])), indent=2)
        files = self._models.half(training, model.manifest_digest) | {SPECIFICATION_FILE: specification.encode()}
        entry = self._log_entry(training, model.manifest_digest)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
            for name, data in signed_files(files, training, entry, self._signer.current).items():
                archive.writestr(name, data)
        return packed.getvalue()

    def import_half(self, folder: Path) -> TrainedModel:
        """Hold again a half that this party has exported.

        Raises ModelChanged, ForeignModel, ModelKnown, StorageFailed.
        """
        half = ExportedHalf.read(folder, safe=NOT_IMPORTED)
        self._check_own(half, folder)
        manifest_digest = hashlib.sha256(half.files[MANIFEST_FILE]).hexdigest()
        with self._importing:
            job = self._store.job(half.training)
            if job is not None:
                self._check_lost(job, manifest_digest)
            self._models.put_half(half.training, half.files)
            if job is None:
                imported = _imported(half, manifest_digest)
                log_import = partial(_tell_imported, training=half.training, manifest_digest=manifest_digest)
                self._store.add(imported, half.spec.encoded(), in_commit=log_import)
                self._store.record(half.training, "done", "its model was imported from an exported half")
            else:
                with self._store.database.writing() as connection:
                    _tell_imported(connection, half.training, manifest_digest)
        return self.get(half.training)

    def _check_own(self, half: ExportedHalf, folder: Path) -> None:
        """Raises ForeignModel."""
        me, key = self._signer.name, half.signature.key
        if half.party != me:
            raise ForeignModel(f"{folder} holds the half of {half.party}, and this party is {me}")
        if key.raw != self._signer.current.key.raw and not self._signer.rotations_since(key.raw):
            raise ForeignModel(
                f"the half in {folder} is signed by the key {key.fingerprint}, which is not one that {me} has or had",
                fix="Import it at a server that has this identity key, or one that has followed it.",
            )

    def _check_lost(self, job: Job, manifest_digest: str) -> None:
        """A half may come in place of files that are gone or damaged, and of nothing else. Raises ModelKnown."""
        if job.manifest_digest != manifest_digest:
            raise ModelKnown(
                f"the job {job.id} is {job.state} at {job.party}, and this half is not what it has left here"
            )
        try:
            self._models.intact(job.id, manifest_digest)
        except ModelChanged:
            return
        raise ModelKnown(f"{job.party} holds its half of the training {job.id} already")

    def _log_entry(self, training: str, manifest_digest: str) -> int:
        """The number of the leaf by which this party has logged the manifest. Raises ModelChanged."""
        with self._store.database.reading() as connection:
            for number, encoded in enumerate(AUDIT_LOG.leaves(connection)):
                if manifest_digest.encode() in encoded:
                    leaf = decode(encoded)
                    if leaf.event in _LOGGED and leaf.job == training:
                        return number
        raise ModelChanged(
            f"the audit log does not say that the training {training} ended with this model, or that it was imported"
        )

    def _held(self) -> Iterator[tuple[Job, dict[str, Any]]]:
        """Every job that has left something here, the newest first, with its manifest."""
        jobs = {job: manifest for job, manifest in self._models.manifests() if self._store.manifest_of(job)}
        jobs_here = [job for job in map(self._store.job, jobs) if job is not None]
        for job in sorted(jobs_here, key=lambda each: each.created_at, reverse=True):
            yield job, jobs[job.id]


def _model(job: Job, manifest: dict[str, Any], predictions: list[str]) -> TrainedModel:
    agreed = job.specification["job"]
    return TrainedModel(
        training=job.id,
        name=job.name,
        protocol=agreed["protocol"],
        task=agreed["task"],
        party=job.party,
        role=job.role,
        peers=job.peers,
        columns=list(manifest.get("columns", ())),
        label=manifest.get("label", ""),
        classes=job.classes,
        metrics=job.metrics,
        spec_digest=job.spec_digest,
        model_digest=job.model_digest or "",
        manifest_digest=job.manifest_digest or "",
        finished_at=job.finished_at or "",
        predictions=predictions,
    )


def _has_learned(job: Job) -> bool:
    return bool(job.specification["job"]["task"] != "none")


def _applied_by(job: Job) -> str:
    """The training whose model a prediction has applied; empty for other jobs."""
    model = job.specification.get("model")
    return str(model.get("training", "")) if isinstance(model, dict) else ""


def _imported(half: ExportedHalf, manifest_digest: str) -> Job:
    """The job that trained it, as far as the half tells of it."""
    spec, result, finished_at = half.spec, half.result, half.manifest["finished_at"]
    note = Notice(
        "note",
        "model_imported",
        "The model was imported from an exported half. What the job sent and revealed is not known at this server.",
    )
    return Job(
        id=half.training,
        name=spec.job.name,
        state="done",
        role=spec.role_of(half.party).value,
        party=half.party,
        peers=list(spec.peers_of(half.party)),
        spec_digest=spec.digest().hex(),
        created_at=finished_at,
        finished_at=finished_at,
        manifest_digest=manifest_digest,
        classes=result["classes"],
        notices=[*msgspec.convert(result["notices"], list[Notice]), note],
        **{name: result[name] for name in ("model_digest", "result_digest", "metrics", "operations", "series")},
    )


def _tell_imported(connection: sql.Connection, training: str, manifest_digest: str) -> None:
    AUDIT_LOG.tell(connection, Event.MODEL_IMPORTED, training, manifest=manifest_digest)
