"""Results of alignments that this party holds, as later jobs name them."""

import contextlib
from pathlib import Path

from safetensors.numpy import load

from parties.storage.models import ModelStore, weights_digest
from parties.tables.aligned_rows import AlignedRows
from parties.trust.errors import UnknownAlignment
from vfl.errors import LocalProtocolError


def alignment(folder: Path, name: str) -> AlignedRows:
    """By the digest of its result, or by the id of its job. Raises UnknownAlignment."""
    models = ModelStore(folder)
    for job, manifest in models.manifests():
        digest = manifest.get("result_digest", "")
        if not digest or name not in {job, digest}:
            continue
        with contextlib.suppress(OSError, LocalProtocolError):
            state = models.model_path(job).read_bytes()
            if weights_digest(state) == manifest["model_digest"]:
                parties = frozenset(manifest["parties"])
                dataset, file_digest = manifest["data"]["rows"], manifest["files"]["rows"]
                return AlignedRows(digest, parties, dataset, file_digest, load(state)["rows"])
    raise UnknownAlignment(f"no alignment {name!r} is held here")
