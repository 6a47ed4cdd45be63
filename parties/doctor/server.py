"""The own server's half: what only the running server knows of itself."""

import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from parties.doctor.disk import disk
from parties.doctor.findings import BETWEEN, FAILED, FEW_DAYS, HERE, OK, SERVER, WARNING, Finding
from parties.peers import Peers
from parties.settings import PartySettings
from parties.storage import schema
from parties.storage.engine import Database
from parties.trust.witness import WitnessStanding
from parties.wire.envelopes import WIRE_VERSION
from vfl.errors import JobError

DATABASE_SECONDS = 2.0


def server(
    folder: Path, settings: PartySettings, peers: Peers, witnesses: Sequence[WitnessStanding], release: str
) -> list[Finding]:
    """Takes a few seconds at most. `witnesses` are those that are no peers."""
    versions = f"Release {release}, wire version {WIRE_VERSION}."
    own = settings.server
    ports = (
        f"{settings.operator_url} for the operator, {own.peer_host}:{own.peer_port} for peers, "
        f"who are told {own.told_address}."
    )
    return [
        Finding(SERVER, "versions", OK, HERE, versions),
        Finding(SERVER, "ports", OK, HERE, ports),
        _certificate(peers.tls.ends_at),
        _database(folder, settings.storage.url),
        disk(SERVER, folder),
        _witnesses(witnesses),
    ]


def _certificate(ends_at: datetime) -> Finding:
    days = (ends_at - datetime.now(UTC)).days
    text = f"This server's own is good for {days} days more."
    if days < FEW_DAYS:
        fix = "Set the clock by NTP, then start the server again: it makes a new certificate."
        return Finding(SERVER, "certificate", WARNING if days > 0 else FAILED, HERE, text, fix)
    return Finding(SERVER, "certificate", OK, HERE, text)


def _witnesses(witnesses: Sequence[WitnessStanding]) -> Finding:
    """One that is away holds up no job; one that has signed another log ends every one."""
    bad = next((each for each in witnesses if each.contradicts), None)
    if bad is not None:
        fix = "Stop the server and put the newest copy of its folder in place; no new job begins before."
        return Finding(SERVER, "witnesses", FAILED, HERE, f"{bad.problem}.", fix)
    silent = next((each for each in witnesses if each.problem), None)
    if silent is not None:
        text = f"{silent.name} has not cosigned the audit log: {silent.problem}."
        fix = f"Ask whoever runs it at {silent.url}. Jobs go on without it, and it is asked again."
        return Finding(SERVER, "witnesses", WARNING, BETWEEN, text, fix)
    named = ", ".join(f"{each.name} the first {each.cosigned} entries" for each in witnesses)
    text = f"Of the audit log have cosigned: {named}." if named else "None is named; peers cosign the audit log."
    return Finding(SERVER, "witnesses", OK, HERE, text)


def _database(folder: Path, url: str) -> Finding:
    """Opens it once more, and writes what it holds over itself, as any other change would be written."""
    try:
        with contextlib.closing(Database(folder, DATABASE_SECONDS, url=url)) as database:
            with database.writing() as connection:
                schema.touch(connection)
            return Finding(SERVER, "database", OK, HERE, f"{_upper(database.name)} can be written.")
    except JobError as error:
        return Finding(SERVER, "database", FAILED, HERE, f"{_upper(str(error))}.", error.fix)


def _upper(text: str) -> str:
    return text if text.startswith("party.") else text[:1].upper() + text[1:]
