"""What party.toml says to a worker."""

from pathlib import Path
from typing import NamedTuple

from parties.server_settings import PoolSettings
from parties.settings import PartySettings
from parties.worker.frames import ClusterTerms, PoolTerms


class OwnSettings(NamedTuple):
    """What a worker is told of party.toml."""

    bottom: str
    """`FILE.py:FUNCTION` of this party's own bottom module; empty when none is named."""
    pool: PoolTerms

    @classmethod
    def read(cls, folder: Path, settings: PartySettings) -> "OwnSettings":
        module = settings.bottom
        bottom = str(folder / module.module) if module else ""
        return cls(bottom, pool_terms(folder, settings.pool))


def pool_terms(folder: Path, pool: PoolSettings) -> PoolTerms:
    """Its files where they are."""
    if pool.kind != "dask":
        return PoolTerms(pool.processes)
    files = (str(folder / name) for name in (pool.ca, pool.certificate, pool.key))
    return PoolTerms(pool.processes, ClusterTerms(pool.scheduler, *files))
