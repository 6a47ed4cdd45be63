"""A table on its way to become a data set: opened, profiled, checked as a whole; what was guessed is said and kept."""

from pathlib import Path
from typing import NamedTuple

import msgspec

from parties.dataset_errors import InvalidDataset
from parties.errors import DuplicateIds, TooFewRows
from parties.tables.file_kinds import Kind
from parties.tables.id_columns import check_each_once, ids_as_written
from parties.tables.profile import Profile, column_warnings, missing_words, profile_of
from parties.tables.registered import Registered, open_registered
from parties.tables.row_ids import oddities
from parties.tables.table_files import TableFile
from parties.tables.table_warnings import table_warnings
from parties.tables.text_format import StatedFormat
from vfl.notices import Notice


class Addition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an operator says of a table; what is left out is found."""

    source: str
    """A path, or with a query the URL of a database."""
    id: tuple[str, ...]
    query: str = ""
    label: str = ""
    stated: StatedFormat = StatedFormat()
    missing: tuple[str, ...] | None = None
    """Words that stand for an empty cell; None: those that are found."""


class Examined(NamedTuple):
    registered: Registered
    digest: str
    """SHA-256 of the file, as hexadecimal digits."""
    profile: Profile
    notices: tuple[Notice, ...]


def examine(folder: Path, addition: Addition, shown: str = "") -> Examined:
    """The table as every job will read it; its file is called `shown`, or by its name.

    Raises InvalidDataset, or another InvalidData, naming column and row.
    """
    shown = shown or Path(addition.source).name
    if not addition.id:
        raise InvalidDataset(
            "no column of ids is named", fix="Name one with --id, or several that make an id together."
        )
    registered = Registered(
        source=addition.source, id=addition.id, label=addition.label, missing=addition.missing or ()
    )
    file, guesses = _opened(folder, registered, addition, shown)
    named = (*addition.id, *((addition.label,) if addition.label else ()))
    file.check_columns(named)
    if len(set(named)) < len(named):
        raise InvalidDataset("a column is named twice among ids and label", fix="Name each column once.")
    profile = profile_of(file, addition.id)
    if not profile.rows:
        raise TooFewRows(f"{file.shown} has a header and no row", fix="Bring a table with rows below its header.")
    notices = list(guesses)
    if addition.missing is None and (words := missing_words(file, profile, addition.id)):
        registered = msgspec.structs.replace(registered, missing=words)
        file, _ = _opened(folder, registered, addition, shown)
        profile = profile_of(file, addition.id)
        text = (
            f"{', '.join(map(repr, words))} in {file.shown} stand for empty cells, as they stand among numbers; name "
            "such words with --missing to be sure"
        )
        notices.append(Notice("guess", "missing_words", text))
    if file.kind is Kind.CSV:
        registered = msgspec.structs.replace(registered, text=file.text)
    digest, rows = file.digest_and_rows(addition.id, addition.id)
    ids = ids_as_written(rows, addition.id, file.shown)
    if rows.blank:
        notices.append(
            Notice("note", "blank_rows", f"{rows.blank} rows of {file.shown} are wholly empty and are left out")
        )
    if odd := oddities(ids, file.shown):
        notices.append(Notice("warning", "odd_ids", f"{odd}: ids are compared as they are written"))
    try:
        check_each_once(ids, rows.numbers, addition.id, file.shown)
    except DuplicateIds as error:
        notices.append(Notice("warning", "duplicate_ids", f"{error}: a job refuses such rows"))
    label = addition.label or None  # a column without a name is no label
    notices += column_warnings(file, profile, addition.id, label)
    notices += table_warnings(file, profile, addition.id, label)
    return Examined(registered, digest, profile, tuple(notices))


def _opened(
    folder: Path, registered: Registered, addition: Addition, shown: str
) -> tuple[TableFile, tuple[Notice, ...]]:
    return open_registered(
        registered, folder, shown, absent="Name the file that holds the table.", stated=addition.stated
    )
