"""`vfl party`: one organisation's folder and its server."""

from pathlib import Path
from typing import Annotated

import typer

from api.cli.output import Format, FormatOption, result
from parties.processes import loading

app = typer.Typer(help="Set up and run one organisation's server.", no_args_is_help=True)


@app.command("init")
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make the party in.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Lower-case letters, digits and hyphens.")],
    operator_port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            min=1,
            max=65535,
            help="For this organisation's people and pipelines (default: 7101, or 7201 and so on where it is taken).",
        ),
    ] = None,
    peer_port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            min=1,
            max=65535,
            help="For other parties (default: that of --address, else 7102, or 7202 and so on where it is taken).",
        ),
    ] = None,
    address: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="Where peers on other machines reach this party's peer port; without it only this machine does.",
        ),
    ] = "",
    output: FormatOption = Format.TEXT,
) -> None:
    """Write party.toml, the identity key and the operator token of a new party."""
    from parties.settings import TOKEN_FILE, init_party, load, load_identity  # noqa: PLC0415 - pydantic, which help can do without
    from parties.trust.key_file import KEY_FILE  # noqa: PLC0415

    settings = init_party(folder, name, operator_port=operator_port, peer_port=peer_port, address=address)
    server = load(folder).server
    ports = {"operator_port": server.operator_port, "peer_port": server.peer_port}
    fingerprint = load_identity(folder, load(folder)).key.fingerprint
    data = {"name": name, "settings": str(settings), "token_file": str(folder / TOKEN_FILE), **ports}
    data |= {"fingerprint": fingerprint, "address": server.told_address}
    text = (
        f"{settings}\n{folder / TOKEN_FILE}\n"
        f"Its ports: {server.operator_port} for its operator, {server.peer_port} for its peers.\n"
        f"Its identity key is {folder / KEY_FILE}: {fingerprint}\n"
        f"Start the server with `vfl party serve {folder}`, enrol peers with `vfl peer invite` or\n"
        "`vfl peer accept`, and add tables with `vfl data add`."
    )
    result(output, data, lambda: text)


@app.command("serve")
def serve(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A party's folder, made by `vfl party init`.")],
) -> None:
    """Run a party's server in the foreground until it is told to end."""
    with loading():
        from api.server import serve as run  # noqa: PLC0415 - the web stack, which help can do without

    run(folder)
