"""`vfl key`: by which key this party is known, and how another one takes its place."""

from typing import Annotated, Any

import typer

from api.cli.connection import CaOption, PartyOption, ServerOption, TokenFileOption, connected
from api.cli.output import CommandFailed, Exit, Format, FormatOption, note, result
from api.cli.question import need_terminal, said_yes

app = typer.Typer(help="This party's identity key.", no_args_is_help=True)


@app.command("show")
def show(
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Show this party's identity key, and which peers know it."""
    with connected(server, token_file, ca, party) as client:
        key = client.key()
    result(output, key, lambda: "\n".join([f"The identity key of {key['party']} is {key['key']}", *_lines(key)]))


@app.command("rotate")
def rotate(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,  # noqa: FBT002 - a flag
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Replace this party's identity key by a new one, which its peers take without another enrolment.

    The old key and the new one sign that one follows the other. Jobs go on. For 24 hours the old key counts too.
    """
    if not yes:
        need_terminal("Give the answer with --yes.")
        note(
            "This party gets a new identity key. Its old key and the new one sign that one follows the other, and",
            "every peer is told: at once if it is there, else as soon as it is back. Nobody has to enrol again.",
            "Jobs go on, and grants stay as they are. Invitations that nobody has answered yet are withdrawn.",
            "For 24 hours the old key counts too. If somebody has stolen it, that is too long: then also ask the",
            "operator of each peer to remove this party at once, and enrol anew.",
        )
        if not said_yes("Replace the identity key? Type yes"):
            raise CommandFailed(Exit.ARGUMENTS, "not_confirmed", "the identity key is the same as before")
    with connected(server, token_file, ca, party) as client:
        key = client.rotate_key()
    result(output, key, lambda: "\n".join([f"The new identity key of {key['party']} is {key['key']}", *_lines(key)]))
    if ca is not None:
        note("If --ca is the operator.ca.pem of this party, fetch that file anew: it pins the identity key.")
    for peer in key["withdrawn"] if output is Format.TEXT else ():
        note(f"The invitation for {peer} was withdrawn. `vfl peer invite {peer}` makes another one.")


def _lines(key: dict[str, Any]) -> list[str]:
    lines = [f"Its fingerprint is {key['fingerprint']}"]
    lines += [f"The key before, {each['fingerprint']}, counts until {each['until']}." for each in key["former"]]
    for peer in key["peers"]:
        if peer["knows"]:
            lines.append(f"{peer['name']} knows it.")
        else:
            problem = f": {peer['problem']}" if peer["problem"] else ""
            lines.append(f"{peer['name']} does not know it yet{problem}. It is told as soon as it can be reached.")
    return lines
