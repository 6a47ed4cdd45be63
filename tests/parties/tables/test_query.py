"""The answer to a query is a data set like any other: of SQLite, and of a PostgreSQL server that the tests start."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from debian_postgresql import DebianPostgresql

from parties.catalogue import ANSWERS, Catalogue
from parties.dataset_errors import QueryFailed
from parties.storage.engine import Database
from parties.tables import query
from parties.tables.addition import Addition
from parties.tables.registered import open_registered

ROWS = 120
LOANS = """
create table loans as select
    'c-' || at as customer, (at / 4.0)::numeric(10, 2) as income, case when at % 10 = 0 then null else at end as calls,
    date '2026-01-01' + at as since, at % 3 = 0 as late
from generate_series(1, 120) at
"""


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    database = Database(tmp_path)
    yield Catalogue(tmp_path, database)
    database.close()


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    path = tmp_path / "bank.db"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("create table loans (customer text, income real, plan text, year integer)")
        rows = [(f"c-{at}", None if at % 10 == 0 else at / 4, ["a", "b"][at % 2], 2020 + at % 3) for at in range(ROWS)]
        connection.executemany("insert into loans values (?, ?, ?, ?)", rows)
    return f"sqlite:///{path}"


@pytest.fixture(scope="module")
def postgres(postgresql: DebianPostgresql) -> str:
    postgresql.execute(LOANS, "create sequence counter")
    return postgresql.url


def added(catalogue: Catalogue, url: str, text: str, name: str = "loans", *, replace: bool = False) -> dict[str, str]:
    dataset = catalogue.add(name, Addition(source=url, query=text, id=("customer",)), replace=replace)
    return {column.name: column.type for column in dataset.profile.columns}


def test_the_answer_of_sqlite_is_kept_profiled_and_read_as_a_table(
    catalogue: Catalogue, sqlite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        query, "BATCH_ROWS", 50
    )  # several batches, which a column's first values do not tell the type of
    types = added(catalogue, sqlite, "select * from loans where year > 2020")
    assert types == {"customer": "text", "income": "number", "plan": "text", "year": "integer"}
    stored = catalogue.get("loans")
    assert (stored.profile.rows, stored.registered.query) == (80, "select * from loans where year > 2020")
    kept = tmp_path / stored.registered.source
    assert kept.parent.name == ANSWERS
    assert kept.stat().st_mode & 0o777 == 0o600
    file, _ = open_registered(stored.registered, tmp_path, "loans", absent="")
    frame = file.rows(file.names, ("customer",)).frame
    assert frame["customer"][0] == "c-1"
    assert frame["income"].null_count() == 8


def test_a_new_answer_takes_the_place_of_the_old_one_and_goes_with_the_data_set(
    catalogue: Catalogue, sqlite: str, tmp_path: Path
) -> None:
    added(catalogue, sqlite, "select * from loans where year > 2020")
    first = catalogue.get("loans")
    added(catalogue, sqlite, "select * from loans", replace=True)
    second = catalogue.get("loans")
    assert first.digest != second.digest
    assert [path.name for path in (tmp_path / ANSWERS).iterdir()] == [Path(second.registered.source).name]
    catalogue.remove("loans")
    assert not list((tmp_path / ANSWERS).iterdir())


@pytest.mark.parametrize(
    ("address", "text", "told"),
    [
        ("sqlite:////nowhere/bank.db", "select 1", "there is no SQLite database"),
        ("mysql://host/bank", "select 1", "the address of the database cannot be read"),
        ("", "select * from loan", "no such table: loan"),
        ("", "select * from loans where year = 1", "answers no row"),
        ("", "drop table loans", "readonly database"),
        ("", "insert into loans values ('x', 1, 'a', 2)", "readonly database"),
    ],
)
def test_a_query_that_fails_or_writes_is_refused_and_leaves_nothing(
    catalogue: Catalogue, sqlite: str, tmp_path: Path, address: str, text: str, told: str
) -> None:
    with pytest.raises(QueryFailed, match=told):
        added(catalogue, address or sqlite, text)
    assert not catalogue.all()
    assert not (tmp_path / ANSWERS).exists() or not list((tmp_path / ANSWERS).iterdir())
    with contextlib.closing(sqlite3.connect(sqlite.removeprefix("sqlite:///"))) as connection:
        assert connection.execute("select count(*) from loans").fetchone() == (ROWS,)


def test_the_answer_of_postgresql_is_a_data_set_and_its_password_is_not_kept(
    catalogue: Catalogue, postgres: str, tmp_path: Path
) -> None:
    types = added(catalogue, postgres, "select * from loans order by customer")
    assert types == {"customer": "text", "income": "number", "calls": "integer", "since": "date", "late": "boolean"}
    assert catalogue.get("loans").registered.database == postgres.replace("secret", "***")
    assert b"secret" not in (tmp_path / "party.db").read_bytes() + (tmp_path / "party.db-wal").read_bytes()
    with pytest.raises(QueryFailed, match="read-only transaction"):
        added(catalogue, postgres, "select nextval('counter')", "other")
    with pytest.raises(QueryFailed, match="failed: "):
        added(catalogue, "postgresql://reader@127.0.0.1:1/postgres", "select 1", "other")
