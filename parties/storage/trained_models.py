"""The models of which this party holds its half, as its operator sees them, and one of them to take away."""

import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

import msgspec

from parties.model_errors import ModelChanged, UnknownModel
from parties.storage.database import Job, Store
from parties.storage.exported_half import SPECIFICATION_FILE, signed_files
from parties.storage.models import ModelStore
from parties.storage.passed import AUDIT_LOG
from parties.trust.leaves import Event, decode
from parties.trust.signer import Signer
from vfl.kinds import decode_spec


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

    def _log_entry(self, training: str, manifest_digest: str) -> int:
        """The number of the leaf by which this party has logged the manifest. Raises ModelChanged."""
        with self._store.database.reading() as connection:
            for number, encoded in enumerate(AUDIT_LOG.leaves(connection)):
                if manifest_digest.encode() in encoded:
                    leaf = decode(encoded)
                    if leaf.event is Event.JOB_ENDED and leaf.job == training:
                        return number
        raise ModelChanged(f"the audit log does not say that the training {training} ended with this model")

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
