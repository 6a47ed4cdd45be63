"""The answer to an SQL query as a table of this party: read once, when a data set is added, and kept as Parquet.

polars reads the answer in batches through SQLAlchemy, which knows the drivers (ADR 0005). A query cannot write: SQLite
is opened to be read, and PostgreSQL runs the query in a transaction that may only read.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import sqlalchemy as sql

from parties.dataset_errors import QueryFailed
from parties.errors import printable

BATCH_ROWS = 50_000
REASON_LIMIT = 300
DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
"""By the first word of a URL."""


def is_url(source: str) -> bool:
    return "://" in source


def without_password(source: str) -> str:
    """A URL as it may be shown and stored. Raises QueryFailed."""
    _url(source)
    return sql.make_url(source).render_as_string(hide_password=True)


def keep_answer(source: str, query: str, path: Path) -> None:
    """The rows of the answer in a Parquet file that its owner alone can read. Raises QueryFailed."""
    url = _url(source)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent) as parts:
            files = list(_write_parts(url, query, Path(parts)))
            if not files:
                raise QueryFailed("the query answers no row")
            # A column that is empty in one batch, or holds whole numbers only, has another type there.
            whole = pl.concat([pl.scan_parquet(file) for file in files], how="diagonal_relaxed")
            whole = whole.with_columns(pl.col(pl.Decimal).cast(pl.Float64))
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            whole.sink_parquet(path)
    except (sql.exc.SQLAlchemyError, pl.exceptions.PolarsError, OSError) as error:
        path.unlink(missing_ok=True)
        cause = getattr(error, "orig", None) or error
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0][:REASON_LIMIT]
        raise QueryFailed(f"the query at {without_password(source)} failed: {printable(reason)}") from error


def _write_parts(url: sql.URL, query: str, folder: Path) -> Iterator[Path]:
    engine = _engine(url)
    try:
        with engine.connect() as connection:
            batches = pl.read_database(
                sql.text(query),
                connection,
                iter_batches=True,
                batch_size=BATCH_ROWS,
                infer_schema_length=None,
            )
            for number, batch in enumerate(batches):
                path = folder / f"{number:06}.parquet"
                batch.write_parquet(path)
                yield path
    finally:
        engine.dispose()


def _engine(url: sql.URL) -> sql.Engine:
    try:
        if url.get_backend_name() == "sqlite":
            return sql.create_engine(_read_only(url))
        return sql.create_engine(url, execution_options={"postgresql_readonly": True, "stream_results": True})
    except ModuleNotFoundError as error:
        raise QueryFailed(
            f"the driver of {url.get_backend_name()} is not installed",
            fix="Install this software with its extra `postgres`.",
        ) from error


def _read_only(url: sql.URL) -> sql.URL:
    if not url.database or not Path(url.database).is_file():
        raise QueryFailed(f"there is no SQLite database {url.database!r}", fix="Name it: sqlite:////folder/file.db.")
    return url.set(database=f"file:{Path(url.database).absolute()}", query={"mode": "ro", "uri": "true"})


def _url(source: str) -> sql.URL:
    try:
        url = sql.make_url(source)
        driver = DRIVERS[url.drivername]
    except (sql.exc.ArgumentError, KeyError):
        raise QueryFailed(
            "the address of the database cannot be read",
            fix="Write sqlite:////folder/file.db or postgresql://host/name.",
        ) from None
    return url.set(drivername=driver)
