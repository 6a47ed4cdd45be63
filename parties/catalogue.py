"""The data sets of a party: what it has added for jobs to name. A file stays where it is, and is read by each job anew.

A job takes the bytes that are there when it is judged: their digest says which version of a data set it uses.
"""

import difflib
import re
import secrets
import threading
from collections.abc import Mapping
from pathlib import Path

import msgspec

from parties.dataset_errors import DatasetKnown, InvalidDataset
from parties.errors import UnknownDataset
from parties.storage.database import now
from parties.storage.datasets import DatasetStore, StoredDataset
from parties.storage.engine import Database
from parties.tables.addition import Addition, Examined, examine
from parties.tables.query import keep_answer, without_password
from parties.tables.registered import Registered

ANSWERS = "answers"
"""The folder of answers to queries, in the party's own."""
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)


class Catalogue:
    """Safe for several threads."""

    def __init__(self, folder: Path, database: Database) -> None:
        self._folder, self._store = folder, DatasetStore(database)
        self._adding = threading.Lock()
        """One table is examined at a time, as each may be large."""

    def add(self, name: str, addition: Addition, *, replace: bool = False) -> StoredDataset:
        """Raises DatasetKnown, InvalidDataset, or what is wrong with its table, and StorageFailed."""
        if NAME.fullmatch(name) is None:
            raise InvalidDataset(
                f"{name!r} is no name of a data set", fix="Use letters, digits, dots, hyphens and underscores."
            )
        with self._adding:
            before = self._store.get(name)
            if before is not None and not replace:
                raise DatasetKnown(f"there is a data set {name!r} already")
            examined = self._examined_answer(name, addition) if addition.query else examine(self._folder, addition)
            dataset = StoredDataset(
                name=name,
                registered=examined.registered,
                digest=examined.digest,
                profile=examined.profile,
                notices=examined.notices,
                added_at=now(),
            )
            self._store.put(dataset)
            self._drop_answer(before)
        return dataset

    def get(self, name: str) -> StoredDataset:
        """Raises UnknownDataset."""
        dataset = self._store.get(name)
        if dataset is None:
            near = difflib.get_close_matches(name, [each.name for each in self._store.all()], n=1)
            raise UnknownDataset(
                f"there is no data set {name!r}",
                fix=f"Did you mean {near[0]!r}?" if near else "`vfl data list` shows them.",
            )
        return dataset

    def all(self) -> list[StoredDataset]:
        return self._store.all()

    def registered(self) -> Mapping[str, Registered]:
        """By name, as jobs read them."""
        return {dataset.name: dataset.registered for dataset in self._store.all()}

    def remove(self, name: str) -> StoredDataset:
        """Its file stays, and so does what the ledger has counted of it. Raises UnknownDataset, StorageFailed.

        The answer to a query goes: it is this party's own copy.
        """
        with self._adding:
            dataset = self.get(name)
            self._store.remove(name)
            self._drop_answer(dataset)
        return dataset

    def _examined_answer(self, name: str, addition: Addition) -> Examined:
        """Of a query that is run now, once. Raises QueryFailed, and as `add`."""
        path = self._folder / ANSWERS / f"{name}-{secrets.token_hex(4)}.parquet"
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            keep_answer(addition.source, addition.query, path)
            of_file = msgspec.structs.replace(addition, source=f"{ANSWERS}/{path.name}", query="")
            examined = examine(self._folder, of_file, f"the answer to the query of {name}")
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        registered = msgspec.structs.replace(
            examined.registered, database=without_password(addition.source), query=addition.query
        )
        return examined._replace(registered=registered)

    def _drop_answer(self, dataset: StoredDataset | None) -> None:
        if dataset is not None and dataset.registered.query:
            (self._folder / dataset.registered.source).unlink(missing_ok=True)
