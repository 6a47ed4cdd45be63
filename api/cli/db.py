"""`vfl db`: the database of a party, on the machine where its folder is."""

from pathlib import Path
from typing import Annotated

import typer

from api.cli.output import Format, FormatOption, note, result
from api.cli.written_file import ForceOption, check_place

app = typer.Typer(help="Look after the database of a party.", no_args_is_help=True)

FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="A party's folder, made by `vfl party init`.")]


@app.command("upgrade")
def upgrade(folder: FolderArgument, output: FormatOption = Format.TEXT) -> None:
    """Bring the tables that an earlier release has made to the form that this release uses.

    The server must be stopped. Make a backup before, with the earlier release (`vfl db backup`): there is no way back.
    """
    from parties.database_upgrade import upgrade_database  # noqa: PLC0415 - SQLAlchemy, which help can do without

    upgraded = upgrade_database(folder)
    text = f"The database of this party ({upgraded.database}) has the form {upgraded.form}, which this release uses."
    result(output, upgraded._asdict(), lambda: text)


@app.command("backup")
def backup(
    folder: FolderArgument,
    place: Annotated[Path, typer.Option("--output", metavar="FILE", help="The file to write, for its owner alone.")],
    force: ForceOption = False,  # noqa: FBT002 - a flag
    output: FormatOption = Format.TEXT,
) -> None:
    """Write all that a party needs to go on elsewhere into one file; its server may run meanwhile.

    The passphrase of the identity key is not in it, nor the operator's token.
    """
    import msgspec  # noqa: PLC0415

    from parties.backup import make_backup  # noqa: PLC0415 - SQLAlchemy, which help can do without

    check_place(place, force=force)
    contents = make_backup(folder, place)
    data = msgspec.to_builtins(contents) | {"output": str(place), "files": len(contents.files)}
    text = f"{place}\n{contents.party} with {contents.leaves} entries of its audit log, in {data['files']} files."
    result(output, data, lambda: text)
    if output is Format.TEXT:
        note("The passphrase of the identity key is not in it: keep a copy of that at another place.")


@app.command("restore")
def restore(
    backup: Annotated[Path, typer.Argument(metavar="FILE", help="What `vfl db backup` wrote.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make the party in; none may be there.")],
    output: FormatOption = Format.TEXT,
) -> None:
    """Put a party back from a backup, on this or another machine, with a new operator token.

    The server that the backup was made of must never run again: peers would meet two parties with one key.
    """
    import msgspec  # noqa: PLC0415

    from parties.backup import restore as put_back  # noqa: PLC0415 - SQLAlchemy, which help can do without

    restored = put_back(backup, folder)
    contents = restored.contents
    data = {"folder": str(folder), "database": restored.database, "missing": list(restored.missing)}
    data |= msgspec.to_builtins(contents) | {"files": len(contents.files)}
    lines = [f"{folder}: {contents.party} as it was at {contents.made_at}, with {contents.leaves} entries."]
    lines += [f"Put in place before the server starts: {path}" for path in restored.missing]
    lines += [f"Start it with `vfl party serve {folder}`. Peers are asked first whether they have signed more."]
    result(output, data, lambda: "\n".join(lines))
