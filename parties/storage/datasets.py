"""The data sets that this party has added, with what was found when they were."""

from typing import Any

import msgspec
import sqlalchemy as sql

from parties.storage.engine import METADATA, Database
from parties.tables.profile import Profile
from parties.tables.registered import Registered
from vfl.notices import Notice


class StoredDataset(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    registered: Registered
    digest: str
    """SHA-256 of the file when it was added, as hexadecimal digits."""
    profile: Profile
    notices: tuple[Notice, ...]
    added_at: str


_DATASETS = sql.Table(
    "datasets",
    METADATA,
    sql.Column("name", sql.String, primary_key=True),
    sql.Column("record", sql.LargeBinary, nullable=False),
)


class DatasetStore:
    """Safe for several threads. A write raises StorageFailed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, dataset: StoredDataset) -> None:
        """In place of one of this name."""
        record = msgspec.msgpack.encode(dataset)
        with self._database.writing() as connection:
            connection.execute(_DATASETS.delete().where(_DATASETS.c.name == dataset.name))
            connection.execute(_DATASETS.insert().values(name=dataset.name, record=record))

    def remove(self, name: str) -> None:
        with self._database.writing() as connection:
            connection.execute(_DATASETS.delete().where(_DATASETS.c.name == name))

    def get(self, name: str) -> StoredDataset | None:
        with self._database.reading() as connection:
            row = connection.execute(_DATASETS.select().where(_DATASETS.c.name == name)).first()
        return None if row is None else _stored(row)

    def all(self) -> list[StoredDataset]:
        """In the order of their names."""
        with self._database.reading() as connection:
            return [_stored(row) for row in connection.execute(_DATASETS.select().order_by(_DATASETS.c.name))]


def _stored(row: "sql.Row[Any]") -> StoredDataset:
    return msgspec.msgpack.decode(row.record, type=StoredDataset)
