"""The own server's half: what only the running server knows of itself."""

import contextlib
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from parties.doctor.disk import disk
from parties.doctor.findings import BETWEEN, FAILED, FEW_DAYS, HERE, OK, SERVER, WARNING, Finding
from parties.peers import Peers
from parties.settings import PartySettings
from parties.storage.engine import DATABASE_FILE
from parties.trust.witness import WitnessStanding
from parties.wire.envelopes import WIRE_VERSION

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
        _database(folder),
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


def _database(folder: Path) -> Finding:
    """Writes a number over itself, as any other change would be written."""
    path = folder / DATABASE_FILE
    try:
        with contextlib.closing(sqlite3.connect(path, DATABASE_SECONDS, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            (number,) = connection.execute("PRAGMA user_version").fetchone()
            connection.execute(f"PRAGMA user_version = {number:d}")
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        fix = "Free space, correct the owner of the folder, or close the program that has the database open."
        return Finding(SERVER, "database", FAILED, HERE, f"{DATABASE_FILE} cannot be written: {error}.", fix)
    return Finding(SERVER, "database", OK, HERE, f"{DATABASE_FILE} can be written.")
