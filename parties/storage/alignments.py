"""Results of alignments that this party holds, as later jobs name them."""

from pathlib import Path

from safetensors.numpy import load

from parties.storage.models import ModelStore
from parties.tables.aligned_rows import AlignedRows
from parties.trust.errors import UnknownAlignment


def alignment(folder: Path, name: str) -> AlignedRows:
    """By the digest of its result, or by the id of its job. Raises UnknownAlignment, ModelChanged."""
    models = ModelStore(folder)
    for job, manifest in models.manifests():
        if (digest := manifest.get("result_digest", "")) and name in {job, digest}:
            result, state = models.intact(job)
            dataset, file_digest = result["data"]["rows"], result["files"]["rows"]
            return AlignedRows(digest, frozenset(result["parties"]), dataset, file_digest, load(state)["rows"])
    raise UnknownAlignment(f"no alignment {name!r} is held here")
