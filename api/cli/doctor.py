"""`vfl doctor`: what is well and what is not, here, on the way to a peer, and at the peer."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from api.cli.connection import CaOption, PartyOption, ServerOption, TokenFileOption, connected
from api.cli.output import CommandFailed, Exit, Format, FormatOption, result
from api.cli.run import specification

if TYPE_CHECKING:
    from rich.console import RenderableType

    from parties.doctor.findings import Finding


def doctor(
    peer: Annotated[str, typer.Argument(metavar="[PEER]", help="Look at this peer and the way to it too.")] = "",
    spec: Annotated[
        Path | None, typer.Option("--spec", metavar="FILE", help="Ask both sides whether this job could run.")
    ] = None,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Check this machine, the own server, and with PEER the network and the peer: what is wrong, at whom, what to do.

    Exits with 1 if a check failed.
    """
    from parties.doctor.machine import libraries, machine  # noqa: PLC0415 - pydantic, which help can do without

    if spec is not None and not peer:
        raise CommandFailed(Exit.ARGUMENTS, "invalid_arguments", "--spec needs PEER", fix="Name the peer of the job.")
    folder = None if server else party or Path()
    with specification(spec) if spec else nullcontext() as text, ThreadPoolExecutor(1) as beside:
        loading = beside.submit(libraries)
        asked = _of_server(server, token_file, ca, party, peer, text)
        rows = [*machine(folder), *loading.result(), *asked]
    findings = [msgspec.to_builtins(each) for each in rows]
    failed = [f"{each['check']} ({each['side']})" for each in findings if each["result"] == "failed"]
    data = {"peer": peer, "failed": len(failed), "findings": findings}
    if output is Format.TEXT or not failed:
        result(output, data, lambda: _table(findings))
    if failed:
        raise CommandFailed(Exit.JOB, "checks_failed", f"failed: {', '.join(failed)}", data=data)


def _of_server(
    server: str | None, token_file: Path | None, ca: Path | None, party: Path | None, peer: str, spec: str | None
) -> "list[Finding]":
    """What the own server answers of itself, and of the peer."""
    from parties.doctor.findings import FAILED, HERE, OK, PEER, SERVER, Finding, not_checked  # noqa: PLC0415
    from parties.errors import SettingsError  # noqa: PLC0415

    findings = []
    try:
        with connected(server, token_file, ca, party) as client:
            findings = [Finding(**each) for each in client.own_half()["findings"]]
            findings.insert(0, Finding(SERVER, "runs", OK, HERE, f"A party's server answers at {client.url}."))
            if peer:
                findings += [Finding(**each) for each in client.look_at_peer(peer)["findings"]]
            if spec is not None:
                findings += [Finding(**each) for each in client.look_at_job(peer, spec)["findings"]]
    except CommandFailed as failure:
        if failure.exit_code is Exit.ARGUMENTS:
            raise
        text = str(failure)
        check = "the peer's checks" if findings else "runs"
        findings.append(Finding(SERVER, check, FAILED, HERE, f"{text[:1].upper()}{text[1:]}.", failure.fix))
    except SettingsError as error:
        findings.append(Finding(SERVER, "runs", FAILED, HERE, "party.toml does not say where it is.", error.fix))
    if peer and not any(each.area == PEER for each in findings):
        findings += not_checked(PEER, [f"all of {peer}"], HERE, "The own server looks at peers, and does not answer.")
    return findings


def _table(findings: Sequence[dict[str, Any]]) -> "RenderableType":
    from rich.table import Table  # noqa: PLC0415 - not needed for JSON
    from rich.text import Text  # noqa: PLC0415

    from parties.errors import printable  # noqa: PLC0415 - peers choose some of the words

    colours = {"warning": "yellow", "failed": "red"}
    table = Table(box=None, pad_edge=False)
    for heading in ("check", "result", "side"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "result")
    table.add_column("what was found, and how to put it right", overflow="fold", ratio=1)
    for area, of_area in groupby(findings, key=itemgetter("area")):
        table.add_row(Text(area, "bold"))
        left_out = []
        for each in of_area:
            if each["result"] == "not checked":
                left_out.append(each)
                continue
            cell = "\n".join(printable(text) for text in (each["text"], each["fix"]) if text)
            table.add_row(
                f"  {each['check']}", Text(each["result"], colours.get(each["result"], "")), each["side"], Text(cell)
            )
        for why, alike in groupby(left_out, key=itemgetter("text")):
            names = ", ".join(each["check"] for each in alike)
            table.add_row("  the rest", "not checked", "", f"{why} Left out: {names}.")
    return table
