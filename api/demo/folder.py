"""The folder a demonstration leaves: each party's own folder, and the joint files beside them."""

import contextlib
import fcntl
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from api.demo.errors import DemoExists
from api.demo.training.agreement import Agreement
from api.demo.training.tables import DATASET, FEATURE_PARTY, LABEL_PARTY, DividedTable
from parties.catalogue import Catalogue
from parties.errors import StorageFailed
from parties.folder_lock import LOCK_FILE
from parties.settings import SETTINGS_FILE, init_party
from parties.storage.engine import Database
from parties.tables.addition import Addition
from parties.wire.control import fixed_private_seed

PARENT = Path("vfl-demo")
RESULT, REPORT, PROCESSES, SPECIFICATION = "result.json", "report.html", "processes.json", "job.toml"
DATA_FILE = f"{DATASET}.csv"
DEMO_SEED = "demo "
"""How the private seed of a party begins that belongs to a demonstration."""
UNTOUCHED = "It was not touched."
ANOTHER = "Name another folder with --output, or move this one away."


@dataclass(frozen=True)
class Place:
    """Where a demonstration may write."""

    folder: Path
    set_aside: Path | None
    """Where the leftovers of an unfinished demonstration went."""


@dataclass(frozen=True)
class PartyFolder:
    """What stands in one party's folder before its server starts."""

    name: str
    peers: tuple[str, ...]
    files: Mapping[str, pl.DataFrame]
    """Its tables by the name of the data set; each becomes a CSV file."""
    id: str
    """The column of ids of each table."""
    acceptance: Mapping[str, Any]
    """[acceptance] beside peers and the seed."""


@contextlib.contextmanager
def taken(output: Path | None, name: str, parties: Sequence[str] = (LABEL_PARTY, FEATURE_PARTY)) -> Iterator[Place]:
    """The user's folder, or the first free one under ./vfl-demo; no second demonstration enters it inside the block.

    What an unfinished one of these parties left is moved to `unfinished-1` and so on: nothing is overwritten, nothing
    is removed. Raises DemoExists when a demonstration finished or still runs there, or when something else stands in
    its place, and StorageFailed when it cannot be made.
    """
    if output and output.exists() and not output.is_dir():
        raise DemoExists(f"{output} is a file", safe=UNTOUCHED, fix="Name a folder with --output.")
    try:
        folder = output or _first_free(name)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageFailed(
            f"the folder {output or PARENT} cannot be made: {error.strerror}", fix="Name another folder with --output."
        ) from error
    with _locked(folder, folder):
        if (folder / RESULT).exists():
            raise DemoExists(f"a finished demonstration stands in {folder}", safe=UNTOUCHED, fix=ANOTHER)
        yield Place(folder, _set_aside(folder, parties))


def finish(folder: Path, envelope: Any) -> None:
    """Write result.json, which marks the demonstration as finished."""
    write_json(folder / RESULT, envelope)


def _first_free(name: str) -> Path:
    return _first_new(PARENT / f"{name}-{number}" for number in itertools.count(1))


def _first_new(folders: Iterator[Path]) -> Path:
    for folder in folders:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    raise AssertionError


@contextlib.contextmanager
def _locked(path: Path, folder: Path) -> Iterator[None]:
    """Hold the lock of a file or folder. Raises DemoExists when another process has it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoExists(
                f"a demonstration runs in {folder}",
                safe=UNTOUCHED,
                fix=f"Name another folder with --output, or end its processes: {folder / PROCESSES} lists them.",
            ) from None
        yield
    finally:
        os.close(descriptor)


def _set_aside(folder: Path, parties: Sequence[str]) -> Path | None:
    """Move away what is in the way; answers where it is now."""
    names = (*parties, SPECIFICATION, REPORT, PROCESSES)
    leftovers = [path for path in (folder / name for name in names) if path.exists()]
    for party in leftovers:
        # The servers outlive a command that was killed, and nobody's own party is ours to move.
        if (party / LOCK_FILE).exists():
            with _locked(party / LOCK_FILE, folder):
                pass
        if (party / SETTINGS_FILE).exists() and f'private_seed = "{DEMO_SEED}' not in (party / SETTINGS_FILE).read_text(
            encoding="utf-8"
        ):
            raise DemoExists(f"{party} is not a demonstration's party", safe=UNTOUCHED, fix=ANOTHER)
    if not leftovers:
        return None
    place = _first_new(folder / f"unfinished-{number}" for number in itertools.count(1))
    for path in leftovers:
        path.rename(place / path.name)
    return place


def private_seed(seed: int, party: str) -> str:
    """What a party of the demonstration draws its private seed from: fixed, so that a run can be repeated."""
    return f"{DEMO_SEED}{seed} {party}"


def drawn_seed(seed: int, party: str) -> bytes:
    """The private seed a party makes of it."""
    return fixed_private_seed(private_seed(seed, party))


def write_parties(
    folder: Path, table: DividedTable, agreement: Agreement, seed: int, ports: Mapping[str, tuple[int, int]]
) -> None:
    """Both folders of a vertical job, each with only its own files. `ports` are (operator, peer) by party."""
    for party, peer in ((LABEL_PARTY, FEATURE_PARTY), (FEATURE_PARTY, LABEL_PARTY)):
        files = table.files[party]
        own = PartyFolder(party, (peer,), files, table.id, {"datasets": [*files], **agreement.acceptance})
        write_party(folder, own, seed, ports)
    write_text(folder / SPECIFICATION, agreement.text)


def write_party(folder: Path, party: PartyFolder, seed: int, ports: Mapping[str, tuple[int, int]]) -> None:
    """A party's folder under this one: settings, token, its own files, and the data sets that they are."""
    operator_port, peer_port = ports[party.name]
    own = folder / party.name
    settings = init_party(own, party.name, operator_port=operator_port, peer_port=peer_port)
    write_text(settings, _settings(party, private_seed(seed, party.name), ports))
    database = Database(own)
    catalogue = Catalogue(own, database)
    for dataset, frame in party.files.items():
        frame.write_csv(own / f"{dataset}.csv")
        (own / f"{dataset}.csv").chmod(0o600)
        catalogue.add(dataset, Addition(source=f"{dataset}.csv", id=(party.id,)))
    database.close()


def write_text(path: Path, text: str) -> None:
    """All of it or nothing: written beside the place and renamed into it."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text, encoding="utf-8")
    if path.exists():
        beside.chmod(path.stat().st_mode & 0o777)
    beside.replace(path)


def write_json(path: Path, data: Any) -> None:
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def _settings(party: PartyFolder, private_seed: str, ports: Mapping[str, tuple[int, int]]) -> str:
    def toml(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    operator_port, peer_port = ports[party.name]
    acceptance = {"peers": party.peers, **party.acceptance, "private_seed": private_seed}
    lines = [f"name = {toml(party.name)}", "", "[server]", f"operator_port = {operator_port}"]
    lines += [f"peer_port = {peer_port}"]
    lines += ["", "[acceptance]", *(f"{key} = {toml(value)}" for key, value in acceptance.items())]
    return "\n".join(lines) + "\n"
