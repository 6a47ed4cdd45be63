"""How the tables of an earlier release are brought to the form of this one, while no server runs."""

from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from parties.folder_lock import hold
from parties.settings import load
from parties.storage.engine import Database
from parties.storage.schema import PRESENT


class Upgraded(NamedTuple):
    database: str
    form: str


def upgrade_database(folder: Path) -> Upgraded:
    """Raises SettingsError, PartyInUse, StorageFailed."""
    url = load(folder).storage.url
    with hold(folder), closing(Database(folder, url=url, upgrade=True)) as database:
        return Upgraded(database.name, PRESENT)
