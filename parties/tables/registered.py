"""A data set as its party has added it: where its table is, which columns are its ids and its label, how it is read."""

from pathlib import Path
from typing import NamedTuple

import msgspec

from parties.tables.file_kinds import Kind
from parties.tables.table_files import TableFile, kind_of_file, open_table
from parties.tables.text_format import StatedFormat, TextFormat, find_format
from vfl.notices import Notice


class Registered(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    source: str
    """Of its file, relative to the party's folder, or anywhere else."""
    id: tuple[str, ...]
    """The columns that name a row, together."""
    label: str = ""
    """A column that no job may take as an input; empty for none."""
    text: TextFormat | None = None
    """How a CSV file is read; None leaves it to be found whenever the file is opened."""
    missing: tuple[str, ...] = ()
    """Words that stand for an empty cell."""
    database: str = ""
    """URL, without its password, of the database whose answer the file holds; empty for a file of the operator."""
    query: str = ""


class Opened(NamedTuple):
    file: TableFile
    notices: tuple[Notice, ...]
    """What was guessed."""


def open_registered(
    registered: Registered, folder: Path, shown: str, *, absent: str, stated: StatedFormat | None = None
) -> Opened:
    """The file is called `shown`; `absent` is what to do where there is none. `stated` is for a format to be found.

    Raises UnknownFile, UnreadableFile.
    """
    path = folder / registered.source
    kind = kind_of_file(path, shown, absent=absent)
    if kind is Kind.CSV and registered.text is None:
        text, notices = find_format(path, shown, stated or StatedFormat())
    else:
        text, notices = registered.text or TextFormat(), ()
    return Opened(open_table(path, shown, kind, text, registered.missing), notices)
