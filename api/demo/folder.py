"""The folder a demonstration leaves: each party's own folder, and the joint files beside them."""

import contextlib
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from api.demo.agreement import Agreement
from api.demo.errors import DemoExists
from api.demo.tables import DATASET, FEATURE_PARTY, LABEL_PARTY, DividedTable
from parties.settings import init_party

PARENT = Path("vfl-demo")
RESULT, REPORT, PROCESSES, SPECIFICATION = "result.json", "report.html", "processes.json", "job.toml"
DATA_FILE = f"{DATASET}.csv"


def choose(output: Path | None, name: str) -> Path:
    """The folder to use: the user's, or the first free one under ./vfl-demo.

    It exists afterwards. Raises DemoExists when a demonstration finished there, or one that did not finish left its
    parties: nothing of either is overwritten.
    """
    if output is None:
        return _first_free(name)
    if (output / RESULT).exists():
        raise DemoExists(
            f"a finished demonstration stands in {output}",
            safe="It was not touched.",
            fix="Name another folder with --output, or remove this one.",
        )
    for party in (LABEL_PARTY, FEATURE_PARTY):
        if (output / party).exists():
            raise DemoExists(
                f"{output} holds the {party} of a demonstration that did not finish",
                safe="It was not touched.",
                fix="Name another folder with --output, or remove this one.",
            )
    if output.exists() and not output.is_dir():
        raise DemoExists(f"{output} is a file", safe="It was not touched.", fix="Name a folder with --output.")
    output.mkdir(parents=True, exist_ok=True)
    return output


def finish(folder: Path, envelope: Any) -> None:
    """Write result.json, which marks the demonstration as finished."""
    write_json(folder / RESULT, envelope)


def _first_free(name: str) -> Path:
    for number in itertools.count(1):
        with contextlib.suppress(FileExistsError):
            folder = PARENT / f"{name}-{number}"
            folder.mkdir(parents=True)
            return folder
    raise AssertionError


def private_seed(seed: int, party: str) -> str:
    """What a party of the demonstration draws its private seed from: fixed, so that a run can be repeated."""
    return f"demo {seed} {party}"


def write_parties(
    folder: Path, table: DividedTable, agreement: Agreement, seed: int, ports: Mapping[str, tuple[int, int]]
) -> None:
    """Both party folders, each with only its own file. `ports` are (operator, peer) by party."""
    frames = {LABEL_PARTY: table.label_file, FEATURE_PARTY: table.feature_file}
    for party, peer in ((LABEL_PARTY, FEATURE_PARTY), (FEATURE_PARTY, LABEL_PARTY)):
        operator_port, peer_port = ports[party]
        settings = init_party(folder / party, party, operator_port=operator_port, peer_port=peer_port)
        frames[party].write_csv(folder / party / DATA_FILE)
        (folder / party / DATA_FILE).chmod(0o600)
        write_text(settings, _settings(party, peer, table.id, agreement, private_seed(seed, party), ports))
    write_text(folder / SPECIFICATION, agreement.text)


def write_text(path: Path, text: str) -> None:
    """All of it or nothing: written beside the place and renamed into it."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text, encoding="utf-8")
    if path.exists():
        beside.chmod(path.stat().st_mode & 0o777)
    beside.replace(path)


def write_json(path: Path, data: Any) -> None:
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def _settings(
    party: str,
    peer: str,
    id_column: str,
    agreement: Agreement,
    private_seed: str,
    ports: Mapping[str, tuple[int, int]],
) -> str:
    def toml(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    operator_port, peer_port = ports[party]
    acceptance = {"peers": [peer], **agreement.acceptance, "private_seed": private_seed}
    lines = [
        f"name = {toml(party)}",
        "",
        "[server]",
        f"operator_port = {operator_port}",
        f"peer_port = {peer_port}",
        "",
        f"[peers.{peer}]",
        f'url = "http://127.0.0.1:{ports[peer][1]}"',
        "",
        f"[datasets.{DATASET}]",
        f"path = {toml(DATA_FILE)}",
        f"id = {toml(id_column)}",
        "",
        "[acceptance]",
        *(f"{key} = {toml(value)}" for key, value in acceptance.items()),
    ]
    return "\n".join(lines) + "\n"
