"""`vfl witness`: an auditor's own witness, which cosigns the audit logs of parties."""

from pathlib import Path
from typing import Annotated

import typer

from api.cli.output import Format, FormatOption, result
from parties.processes import loading

app = typer.Typer(help="Cosign the audit logs of parties, as an auditor who is none.", no_args_is_help=True)

FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="A witness's folder, made by `vfl witness init`.")]


@app.command("init")
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make the witness in.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Under which it signs: auditor.example.org.")],
    output: FormatOption = Format.TEXT,
) -> None:
    """Write witness.toml and the key of a new witness, and print the key that parties name."""
    from parties.standalone_witness import SETTINGS_FILE, init_witness, verifier_key  # noqa: PLC0415 - pydantic

    key = str(verifier_key(init_witness(folder, name)))
    settings = folder / SETTINGS_FILE
    text = (
        f"{settings}\nIts key, for party.toml of those whose logs it cosigns:\n{key}\n"
        f"Name the keys of their logs in {settings}, and start it with `vfl witness run {folder}`."
    )
    result(output, {"name": name, "settings": str(settings), "key": key}, lambda: text)


@app.command("run")
def run(folder: FolderArgument) -> None:
    """Run a witness in the foreground until it is told to end."""
    with loading():
        from api.witness_server import serve_witness  # noqa: PLC0415 - the web stack, which help can do without

    serve_witness(folder)


@app.command("list")
def heads(folder: FolderArgument, output: FormatOption = Format.TEXT) -> None:
    """Show the newest head of each log that this witness has cosigned: compare it with the bundle of that party."""
    from datetime import UTC, datetime  # noqa: PLC0415

    from parties.standalone_witness import StandaloneWitness, load_witness, verifier_key  # noqa: PLC0415
    from parties.trust.notes import Checkpoint, cosigned_at  # noqa: PLC0415

    settings, identity = load_witness(folder)
    witness, key = StandaloneWitness(folder, settings, identity), verifier_key(identity)
    try:
        notes = witness.heads()
    finally:
        witness.close()
    heads, lines = [], []
    for note in notes:
        head = Checkpoint.parse(note.text)
        at = datetime.fromtimestamp(cosigned_at(note.verify(key)), UTC).isoformat()
        heads.append({"log": head.origin, "size": head.size, "root": head.root.hex(), "cosigned_at": at})
        lines.append(f"{head.origin}: the first {head.size} entries, head {head.root.hex()}, at {at}")
    data = {"name": settings.name, "key": str(key), "heads": heads}
    result(output, data, lambda: "\n".join(lines) or "It has cosigned nothing yet.")
