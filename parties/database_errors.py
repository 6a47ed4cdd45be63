"""What can be wrong with the database of a party, each with its stable code (errors.md)."""

from parties.errors import SettingsError, StorageFailed
from vfl.errors import InvalidData


class DatabaseUnreachable(StorageFailed):
    """The party's PostgreSQL server was away for as long as a peer may be out of reach."""

    code = "database_unreachable"
    fix = "Start the PostgreSQL server that storage.url names, or correct the address or the password, and try again."


class DatabaseBusy(StorageFailed):
    """Another program has kept the party's database locked for as long as a peer may be out of reach."""

    code = "database_busy"
    fix = "Close the program that has the party's database open, and try again."


class SchemaDiffers(SettingsError):
    """The tables of the party's database have another form than this release uses."""

    code = "schema_differs"
    safe = "Nothing was started, and the database was not changed."


class DatabaseOfAnother(SettingsError):
    """The database that a party is told to use belongs to another party."""

    code = "database_of_another"
    safe = "Nothing was started, and the database was not changed."
    fix = "Give each party a database, or a schema, of its own: storage.url in party.toml, or VFL_STORAGE__URL."


class BackupUnreadable(InvalidData):
    """A file is no backup of a party, or was changed."""

    code = "backup_unreadable"
    safe = "Nothing was restored."
    fix = "Take another copy of the file, or an older backup."


class RestoreRefused(InvalidData):
    """A backup would come in place of a party that is there."""

    code = "restore_refused"
    safe = "Nothing was restored, and what is there was not touched."
    fix = "Restore into an empty folder, and where storage.url names a database, into one that is empty."
