"""Files that a command writes for its user: one that stands there already is not replaced unasked."""

from pathlib import Path
from typing import Annotated

import typer

from api.cli.output import CommandFailed, Exit

ForceOption = Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")]


def check_place(place: Path, *, force: bool) -> None:
    """Before the work for it is done. Raises CommandFailed where a file stands."""
    if not force and place.exists():
        raise CommandFailed(
            Exit.ARGUMENTS,
            "file_exists",
            f"{place} exists already",
            safe="It was not touched.",
            fix="Name another file with --output, or replace this one with --force.",
        )


def write_file(place: Path, data: bytes, *, force: bool) -> None:
    """Raises CommandFailed where it cannot be written, or exists."""
    try:
        with place.open("wb" if force else "xb") as file:
            file.write(data)
    except FileExistsError:
        check_place(place, force=False)
    except OSError as error:
        raise CommandFailed(
            Exit.ARGUMENTS,
            "file_unwritable",
            f"{place} cannot be written: {error.strerror}",
            fix="Name another file with --output.",
        ) from error
