"""The tables of a database have a form with a number: one of another release is named, and never changed unasked."""

import shutil
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import parties.party  # registers every table  # noqa: F401
from parties.database_errors import DatabaseOfAnother, SchemaDiffers
from parties.storage import schema
from parties.storage.engine import METADATA, Database
from parties.storage.owner import claim

NEXT = '''"""One more column."""

import sqlalchemy as sql
from alembic import op

revision, down_revision = "next", "{present}"


def upgrade() -> None:
    with op.batch_alter_table("pinned_keys") as table:
        table.add_column(sql.Column("note", sql.String, nullable=False, server_default="none"))
'''


@pytest.fixture
def later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """From its return on, this release is the one after the present one."""
    folder = tmp_path / "migrations"
    shutil.copytree(schema.MIGRATIONS, folder)
    (folder / "versions" / "next.py").write_text(NEXT.format(present=schema.PRESENT))
    monkeypatch.setattr(schema, "MIGRATIONS", folder)
    monkeypatch.setattr(schema, "PRESENT", "next")
    return monkeypatch


def test_the_migrations_make_the_tables_that_the_code_knows(tmp_path: Path, database_url: str) -> None:
    with closing(Database(tmp_path, url=database_url)) as database, database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []


def test_the_present_form_is_the_one_that_the_last_migration_makes() -> None:
    assert ScriptDirectory(str(schema.MIGRATIONS)).get_heads() == [schema.PRESENT]


def test_tables_of_an_earlier_release_are_named_and_upgraded_when_asked_for(
    tmp_path: Path, database_url: str, request: pytest.FixtureRequest
) -> None:
    with closing(Database(tmp_path, url=database_url)) as database:
        claim(database, "bank")
    request.getfixturevalue("later")
    with pytest.raises(SchemaDiffers, match="earlier release") as raised:
        Database(tmp_path, url=database_url)
    assert "vfl db upgrade" in raised.value.fix
    with closing(Database(tmp_path, url=database_url, upgrade=True)) as database:
        claim(database, "bank")
        with database.reading() as connection:
            assert connection.exec_driver_sql("SELECT note FROM pinned_keys").all() == []
    Database(tmp_path, url=database_url).close()


def test_tables_of_a_later_release_are_named_and_stay_as_they_are(
    tmp_path: Path, database_url: str, later: pytest.MonkeyPatch
) -> None:
    Database(tmp_path, url=database_url).close()
    later.undo()
    for upgrade in (False, True):
        with pytest.raises(SchemaDiffers, match="later release") as raised:
            Database(tmp_path, url=database_url, upgrade=upgrade)
        assert "backup" in raised.value.fix


@pytest.mark.parametrize("upgrade", [False, True])
def test_tables_that_no_release_has_made_are_not_touched(tmp_path: Path, database_url: str, *, upgrade: bool) -> None:
    with closing(Database(tmp_path, url=database_url)) as database, database.writing() as connection:
        connection.exec_driver_sql("DROP TABLE alembic_version")
    with pytest.raises(SchemaDiffers, match="no release"):
        Database(tmp_path, url=database_url, upgrade=upgrade)


def test_a_migration_that_fails_changes_nothing(
    tmp_path: Path, database_url: str, request: pytest.FixtureRequest
) -> None:
    Database(tmp_path, url=database_url).close()
    request.getfixturevalue("later")
    path = schema.MIGRATIONS / "versions" / "next.py"
    path.write_text(path.read_text() + '    raise ArithmeticError("half way")\n')
    with pytest.raises(ArithmeticError, match="half way"):
        Database(tmp_path, url=database_url, upgrade=True)
    request.getfixturevalue("monkeypatch").undo()
    with closing(Database(tmp_path, url=database_url)) as database, database.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


def test_a_database_belongs_to_the_party_that_used_it_first(tmp_path: Path, database_url: str) -> None:
    with closing(Database(tmp_path, url=database_url)) as database:
        claim(database, "bank")
        claim(database, "bank")
        with pytest.raises(DatabaseOfAnother, match="belongs to bank, and this party is telco"):
            claim(database, "telco")
