"""`vfl peer`: how two organisations come to know each other's servers."""

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.connection import CaOption, PartyOption, ServerOption, TokenFileOption, connected
from api.cli.output import CommandFailed, Exit, Format, FormatOption, note, result
from api.cli.question import need_terminal, said_yes

if TYPE_CHECKING:
    from rich.console import RenderableType

    from api.client import Client

app = typer.Typer(help="Enrol, check and remove the parties this one works with.", no_args_is_help=True)

PeerArgument = Annotated[str, typer.Argument(metavar="NAME", help="The peer's name.")]
WordsOption = Annotated[
    str, typer.Option("--words", metavar="WORDS", help="The six words, as the other operator has read them out.")
]
LOOK_SECONDS = 1.0


@app.command("invite")
def invite(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name in the other side's party.toml.")],
    hours: Annotated[float, typer.Option(metavar="N", help="How long the invitation is good; 72 at most.")] = 24,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Print an invitation: one line to send to the other side's operator.

    At a terminal the command then waits until the other side has accepted it, and asks you to compare six words.
    """
    with connected(server, token_file, ca, party) as client:
        invitation = client.invite(name, hours)
        result(output, invitation, lambda: str(invitation["line"]))
        if output is not Format.TEXT:
            return
        note(
            f"Send this line to the operator of {name}, who runs `vfl peer accept LINE`.",
            f"It is good once, until {invitation['expires_at']}. Whoever reads it can answer it: the six words",
            "that you will then compare by telephone show whether it was the right one.",
        )
        if not sys.stdin.isatty():
            note(f"Afterwards `vfl peer list` shows the words, and `vfl peer confirm {name}` trusts them.")
            return
        note(f"Waiting for {name}; Ctrl-C ends the waiting, and the invitation stays good.")
        _confirm_at_terminal(client, _met(client, name))


@app.command("accept")
def accept(
    line: Annotated[str, typer.Argument(metavar="LINE", help="The line that `vfl peer invite` printed.")],
    address: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", help="Where that peer reaches this party, if not at server.address."),
    ] = "",
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Accept the invitation of another party: the two servers meet, and both operators compare six words."""
    with connected(server, token_file, ca, party) as client:
        peer = client.accept(line, address)
        if output is not Format.TEXT or not sys.stdin.isatty():
            result(output, peer, lambda: str(peer["words"]))
            if output is Format.TEXT:
                note(f"If the other operator sees these six words, run `vfl peer confirm {peer['name']} --words ...`.")
            return
        _confirm_at_terminal(client, peer)


@app.command("confirm")
def confirm(
    name: PeerArgument,
    words: WordsOption = "",
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Trust a peer whose six words are the same at both sides."""
    with connected(server, token_file, ca, party) as client:
        if not words:
            _confirm_at_terminal(client, _known(client, name))
            return
        peer = client.confirm(name, words)
    result(output, peer, lambda: _trusted(peer))


@app.command("list")
def list_peers(
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """List the parties this one knows."""
    with connected(server, token_file, ca, party) as client:
        answer = client.peers()
    result(output, answer, lambda: _table(answer))
    if output is Format.TEXT:
        note(f"This party is {answer['party']}; its own key is {answer['fingerprint']}.")


@app.command("check")
def check(
    name: PeerArgument,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Ask a peer's server whether it is there, and whether it trusts this party."""
    with connected(server, token_file, ca, party) as client:
        answer = client.check_peer(name)
    result(output, answer, lambda: f"{name} answers, and both sides trust each other.")


@app.command("address")
def address_of(
    name: PeerArgument,
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="Where its peer port is now.")],
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Call a peer at another address; its key stays the one that is pinned."""
    with connected(server, token_file, ca, party) as client:
        peer = client.move_peer(name, address)
    result(output, peer, lambda: f"{name} is called at {peer['address']} from now on.")


@app.command("remove")
def remove(
    name: PeerArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,  # noqa: FBT002 - a flag
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Trust a peer no longer; jobs that need it fail."""
    if not yes:
        need_terminal("Give the answer with --yes.")
        if not said_yes(f"Trust {name} no longer? Running jobs with it fail. Type yes"):
            raise CommandFailed(Exit.ARGUMENTS, "not_confirmed", f"{name} is still trusted")
    with connected(server, token_file, ca, party) as client:
        peer = client.remove_peer(name)
    result(output, peer, lambda: f"{name} is no longer trusted.")


def _met(client: "Client", name: str) -> dict[str, Any]:
    """The peer, once it has accepted the invitation."""
    while True:
        for peer in client.peers()["peers"]:
            if peer["name"] == name and peer["state"] == "waiting":
                return dict(peer)
        time.sleep(LOOK_SECONDS)


def _known(client: "Client", name: str) -> dict[str, Any]:
    for peer in client.peers()["peers"]:
        if peer["name"] == name:
            return dict(peer)
    raise CommandFailed(
        Exit.ARGUMENTS, "unknown_peer", f"no party named {name} is known here", fix="`vfl peer list` shows who is."
    )


def _confirm_at_terminal(client: "Client", peer: dict[str, Any]) -> None:
    if peer["state"] == "trusted":
        result(Format.TEXT, peer, lambda: _trusted(peer))
        return
    need_terminal("Give the six words with --words.")
    name, words = peer["name"], peer["words"]
    note(f"{name} at {peer['address']}, key {peer['fingerprint']}", "", f"    {words}", "")
    note(f"Read these six words to the operator of {name} by telephone. Trust nothing if one of them differs.")
    if not said_yes("Does the other side see the same six words? Type yes or no"):
        client.remove_peer(name)
        raise CommandFailed(
            Exit.JOB,
            "not_confirmed",
            f"{name} is not trusted",
            safe="Nothing was sent to it.",
            fix="Somebody may stand between the two servers. Begin again with a new invitation, sent by another way.",
        )
    trusted = client.confirm(name, words)
    result(Format.TEXT, trusted, lambda: _trusted(trusted))


def _trusted(peer: dict[str, Any]) -> str:
    return f"{peer['name']} is trusted. What it may use is said by your grants and by [acceptance] in party.toml."


def _table(answer: dict[str, Any]) -> "RenderableType":
    from rich.table import Table  # noqa: PLC0415 - not needed for JSON

    table = Table(box=None, pad_edge=False)
    for heading in ("peer", "state", "address", "key or six words"):
        table.add_column(heading, overflow="fold")
    for peer in answer["peers"]:
        table.add_row(peer["name"], peer["state"], peer["address"], peer["words"] or peer["fingerprint"])
    return table
