"""`vfl audit`: what this party's audit log says, and whether two of them say the same."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.connection import CaOption, PartyOption, ServerOption, TokenFileOption, connected
from api.cli.output import CommandFailed, Exit, Format, FormatOption, note, result

if TYPE_CHECKING:
    from rich.console import RenderableType

app = typer.Typer(help="Show, export and verify the audit log.", no_args_is_help=True)

ENTRIES_SHOWN = 20


@app.command("show")
def show(
    entries: Annotated[
        int, typer.Option(metavar="N", min=0, max=1000, help="How many of the last entries to show.")
    ] = ENTRIES_SHOWN,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Show the head of the audit log, up to where peers and witnesses have cosigned it, and its last entries."""
    with connected(server, token_file, ca, party) as client:
        head = client.audit_head()
        after = max(0, head["size"] - entries)
        shown = client.audit_entries(after, entries)["entries"] if entries else []
    result(output, {"head": head, "entries": shown}, lambda: _shown(head, shown))


@app.command("export")
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to make; it must not exist yet.")],
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Write a bundle for an auditor or a peer, with the program that verifies it. Best while no job runs."""
    with connected(server, token_file, ca, party) as client:
        try:
            client.export_audit(folder)
        except OSError as error:
            raise CommandFailed(
                Exit.ARGUMENTS,
                "file_unwritable",
                f"{folder} cannot be written: {error.strerror}",
                fix="Name a folder that does not exist yet.",
            ) from error
    result(output, {"folder": str(folder)}, lambda: f"The bundle is in {folder}; its README.txt says how to check it.")


@app.command("proof")
def proof(
    index: Annotated[int, typer.Argument(metavar="INDEX", min=0, help="Number of the entry, from 0.")],
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Print a proof that an entry stands in the log (c2sp.org/tlog-proof); it carries the entry itself."""
    with connected(server, token_file, ca, party) as client:
        text = client.audit_proof(index)
    result(output, {"index": index, "proof": text}, lambda: text.rstrip("\n"))


@app.command("verify")
def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of an exported bundle.")],
    peer_bundle: Annotated[
        Path | None, typer.Argument(metavar="PEER_BUNDLE", help="That of a peer, to compare both.")
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(
            "--key", metavar="NAME=BASE64", help="The key of a party, or of a witness, as you know it from elsewhere."
        ),
    ] = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Check one bundle, or two against each other; no server and no network are needed."""
    from parties.trust.verifier import PROBLEMS_SHOWN, check_all, from_base64  # noqa: PLC0415 - not needed for help

    folders = [bundle] if peer_bundle is None else [bundle, peer_bundle]
    for folder in folders:
        if not any((folder / file).is_file() for file in ("party.json", "leaves.bin")):
            raise CommandFailed(
                Exit.ARGUMENTS,
                "bundle_not_found",
                f"{folder} is no bundle of an audit log: neither party.json nor leaves.bin is there",
                fix="Name the folder that `vfl audit export` wrote.",
            )
    try:
        pinned = {name: from_base64(value)[-32:] for name, _, value in (text.partition("=") for text in key or [])}
    except ValueError as error:
        raise CommandFailed(
            Exit.ARGUMENTS, "invalid_arguments", f"--key: {error}", fix="Write NAME=BASE64, as README.txt does."
        ) from error
    bundles, problems = check_all(folders, pinned)
    if problems:
        problems = sorted(problems, key=lambda problem: problem.leaf is None)
        shown = [str(problem) for problem in problems[:PROBLEMS_SHOWN]]
        raise CommandFailed(
            Exit.JOB,
            "audit_not_verified",
            "\n".join([f"The audit does not hold: {len(problems)} problems. The first bad leaf stands first.", *shown]),
            safe="Nothing was changed.",
            fix="Export both bundles again while no job runs; what remains then was changed at the side that is named.",
        )
    parties = [{"party": each.party, "entries": len(each.leaves), "envelopes": len(each.envelopes)} for each in bundles]
    counts = " and ".join(f"{each['entries']} entries of {each['party']}" for each in parties)
    how = "both logs verify against each other" if len(parties) > 1 else "the log verifies alone; a peer's shows more"
    result(output, {"verified": True, "bundles": parties}, lambda: f"{counts}: {how}.")
    if output is Format.TEXT and {each.party for each in bundles} - set(pinned):
        note("Whose the keys are is not proven: name them with --key, as you know them from elsewhere.")


def _shown(head: dict[str, Any], entries: list[dict[str, Any]]) -> "RenderableType":
    from rich.console import Group  # noqa: PLC0415 - not needed for JSON
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from parties.errors import printable  # noqa: PLC0415 - a witness chooses some of the words

    table = Table(box=None, pad_edge=False)
    for heading in ("entry", "time", "event", "peer", "job", "what"):
        table.add_column(heading, overflow="fold")
    for entry in entries:
        envelope = entry["envelope"]
        what = f"{envelope['kind']} {envelope['attempt']}/{envelope['sequence']}" if envelope else ""
        what = " ".join([what, *(f"{name}={value}" for name, value in entry["detail"].items())]).strip()
        table.add_row(str(entry["index"]), entry["time"], entry["event"], entry["peer"], entry["job"], what)
    sizes = head["cosigned"] | {each["name"]: each["cosigned"] for each in head["witnesses"]}
    cosigned = ", ".join(f"{name} the first {size}" for name, size in sizes.items()) or "nobody"
    lines = [f"{head['size']} entries, head {head['root']}", f"cosigned by: {cosigned}"]
    lines += [f"{each['name']} at {each['url']}: {each['problem']}" for each in head["witnesses"] if each["problem"]]
    return Group(*map(Text, map(printable, [*lines, f"key of this log: {head['key']}"])), "", table)
