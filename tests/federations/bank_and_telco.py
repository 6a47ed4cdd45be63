"""A bank with the label and a telephone company with more columns, on two real servers, for tests of predictions."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BANK, TELCO = "bank", "telco"
Parties = tuple[Any, Any]


@contextmanager
def bank_and_telco(
    root: Path,
    new_party: Callable[..., Any],
    ports: list[int],
    write_tables: Callable[[Path, Path], None],
    settings: Callable[[str], str],
    of_telco: dict[str, str] | None = None,
) -> Iterator[Parties]:
    """Both running. Each has the data sets `known` and `new`, and the telephone company those in `of_telco` too, which
    `write_tables` writes into the two folders; `settings` changes the text of each party.toml."""
    urls = {BANK: f"https://127.0.0.1:{ports[1]}", TELCO: f"https://127.0.0.1:{ports[3]}"}
    files = {"known": "known.csv", "new": "new.csv"}
    bank = new_party(root / BANK, BANK, {TELCO: urls[TELCO]}, files, ports[:2])
    telco = new_party(root / TELCO, TELCO, {BANK: urls[BANK]}, files | (of_telco or {}), ports[2:])
    write_tables(bank.folder, telco.folder)
    for server in (bank, telco):
        file = server.folder / "party.toml"
        file.write_text(settings(file.read_text("utf-8")), "utf-8")
    bank.granting = [telco]
    try:
        yield bank.start(), telco.start()
    finally:
        for server in (bank, telco):
            server.close()


def both_done(parties: Parties, spec: str) -> list[dict[str, Any]]:
    """The job as each party shows it, once it is done at both."""
    job = parties[0].submit(spec)["id"]
    ended = [party.over(job) for party in parties]
    assert [job["state"] for job in ended] == ["done", "done"], [job["error"] for job in ended]
    return ended
