"""Data sets of parties of tests: registered before a server runs, whether their files are there yet or not."""

from collections.abc import Mapping
from pathlib import Path

from parties.storage.datasets import DatasetStore, StoredDataset
from parties.storage.engine import Database
from parties.tables.profile import Profile
from parties.tables.registered import Registered


def in_file(source: str = "table.csv") -> Registered:
    """Its ids stand in the column `id`."""
    return Registered(source=source, id=("id",))


def register(folder: Path, files: Mapping[str, str], database_url: str = "") -> None:
    """The party of this folder has these data sets, each in its file."""
    database = Database(folder, url=database_url)
    store = DatasetStore(database)
    for name, file in files.items():
        nothing = Profile(rows=0, columns=())
        store.put(
            StoredDataset(name=name, registered=in_file(file), digest="", profile=nothing, notices=(), added_at="")
        )
    database.close()
