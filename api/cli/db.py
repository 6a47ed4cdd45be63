"""`vfl db`: the database of a party, on the machine where its folder is."""

from pathlib import Path
from typing import Annotated

import typer

from api.cli.output import Format, FormatOption, result

app = typer.Typer(help="Look after the database of a party.", no_args_is_help=True)

FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="A party's folder, made by `vfl party init`.")]


@app.command("upgrade")
def upgrade(folder: FolderArgument, output: FormatOption = Format.TEXT) -> None:
    """Bring the tables that an earlier release has made to the form that this release uses.

    The server must be stopped. Make a backup with the earlier release before: there is no way back.
    """
    from parties.database_care import upgrade_database  # noqa: PLC0415 - SQLAlchemy, which help can do without

    upgraded = upgrade_database(folder)
    text = f"The database of this party ({upgraded.database}) has the form {upgraded.form}, which this release uses."
    result(output, upgraded._asdict(), lambda: text)
