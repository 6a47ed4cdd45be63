"""Which form the tables of a database have, and how a later one follows: Alembic's migrations, in `migrations`.

A database that is empty gets the present form. One that is older is brought to it by `vfl db upgrade` and by nothing
else, and one that is newer is not touched.
"""

from pathlib import Path

import sqlalchemy as sql

from parties.database_errors import SchemaDiffers

PRESENT = "0001"
"""What the last migration is called."""
MIGRATIONS = Path(__file__).parent / "migrations"
_VERSION_TABLE = "alembic_version"
UNNUMBERED = "unnumbered"
"""Of a build that made tables before they had versions."""


def revision(connection: sql.Connection) -> str:
    """Empty where there are no tables."""
    tables = sql.inspect(connection)
    if tables.has_table(_VERSION_TABLE):
        number = connection.execute(sql.text(f"SELECT version_num FROM {_VERSION_TABLE}")).scalar()  # noqa: S608
        return str(number or UNNUMBERED)
    return UNNUMBERED if tables.get_table_names() else ""


def is_present(found_revision: str, name: str, *, upgrade: bool = False) -> bool:
    """False for one that may be brought to the present form now. Raises SchemaDiffers."""
    if found_revision in {"", PRESENT}:
        return found_revision == PRESENT
    if found_revision == UNNUMBERED:
        raise SchemaDiffers(
            f"{name} holds tables that no release of this software has made, or a build from before the first one",
            fix="Name an empty database, or put the right one in place. What an early build has made cannot be taken "
            "over: make a new party with `vfl party init`.",
        )
    if found_revision not in _known():
        raise SchemaDiffers(
            f"{name} was made by a later release (form {found_revision}; this release knows up to {PRESENT})",
            fix="Install that release again. To go back to this one, restore a backup that this release has made.",
        )
    if not upgrade:
        raise SchemaDiffers(
            f"{name} was made by an earlier release (form {found_revision}; this release uses {PRESENT})",
            fix="Make a backup with the earlier release (`vfl db backup`), then run `vfl db upgrade`.",
        )
    return False


def upgrade(connection: sql.Connection) -> None:
    """To the present form, in the transaction of this connection."""
    # A server whose database has this form already does without: Alembic is a tenth of a second.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def touch(connection: sql.Connection) -> None:
    """A change that changes nothing."""
    connection.execute(sql.text(f"UPDATE {_VERSION_TABLE} SET version_num = version_num"))  # noqa: S608


def _known() -> set[str]:
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    return {each.revision for each in ScriptDirectory(str(MIGRATIONS)).walk_revisions()}
