"""One simulation as a command runs it: its folder, its states, its report, and going on where it was interrupted."""

import contextlib
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from parties.errors import StorageFailed
from parties.simulation.driver import Simulated, simulate
from parties.simulation.specification import Federation, load_whole, setups
from vfl.notices import Notice
from vfl.reports import Fact, Outcome, Refused, RoundDone
from vfl.setup import Setup
from vfl.spec.rounds import RoundsSpec
from vfl.spec.sections import PartyId

MODEL, REPORT, SPECIFICATION, PROGRESS, STATES = (
    "model.safetensors",
    "report.json",
    "job.toml",
    "progress.json",
    "state",
)


class SimulationExists(StorageFailed):
    """The folder does not hold what a simulation may start in, or go on from."""

    code = "simulation_exists"
    safe = "It was not touched."


Setups = Mapping[PartyId, Setup[RoundsSpec]]


class RoundTraffic(msgspec.Struct, frozen=True, order=True):
    """Messages of one kind in one round, all clients together."""

    round: int
    """0 before the first."""
    direction: str
    """`down` from the aggregator to clients, `up` from them."""
    kind: str
    messages: int
    bytes: int


class Checkpoint(msgspec.Struct, frozen=True):
    """What is known beside the states; it is written last, so a round counts once it stands here."""

    digest: str
    """Of all that the result depends on: a state goes on under the same specification only."""
    round: int
    lines: list[RoundTraffic]
    refused: list[dict[str, str]]
    seconds: float


@dataclass
class Run:
    """One simulation, from its specification to its report. `on_round` is told each round's number and measures."""

    federation: Federation
    processes: int
    text: str = ""
    """The specification as it was written."""
    source: Path = Path()
    """The folder in which it looks for files."""
    folder: Path | None = None
    on_round: Callable[[int, Mapping[str, float]], None] = lambda _round, _measures: None
    on_refused: Callable[[str], None] = lambda _text: None
    _before: Checkpoint = field(init=False, default=Checkpoint("", 0, [], [], 0.0))
    _refused: list[dict[str, str]] = field(init=False, default_factory=list)
    _clients: dict[PartyId, bytes] = field(init=False, default_factory=dict)
    """Newest state of each client, where a part may keep something there."""
    _started: float = field(init=False, default=0.0)

    def fresh(self) -> dict[str, Any]:
        """Run from the start; answers the report. Raises SimulationExists where something stands in the folder."""
        if self.folder is not None:
            if self.folder.exists() and any(self.folder.iterdir()):
                raise SimulationExists(
                    f"{self.folder} is not empty", fix="Name another folder, or go on in this one with --resume."
                )
            _written(self.folder / SPECIFICATION, self.text.encode())
        return self._run({})

    def resumed(self) -> dict[str, Any]:
        """Run on from the folder's last round. Raises SimulationExists where there is none, or of another job."""
        folder = self.folder or Path()
        try:
            self._before = msgspec.json.decode((folder / PROGRESS).read_bytes(), type=Checkpoint)
        except (OSError, msgspec.DecodeError) as error:
            raise SimulationExists(
                f"no round is finished in {folder}", fix="Start it without --resume, in a new folder."
            ) from error
        if self._before.digest != self.federation.digest().hex():
            raise SimulationExists(
                f"the states in {folder} belong to another specification",
                fix=f"Resume with the one in {folder / SPECIFICATION}, or start anew in another folder.",
            )
        self._refused = list(self._before.refused)
        aggregator, number = self.federation.spec.roster.aggregator, self._before.round
        saved = {aggregator: self._state(folder, f"round-{number:04}.safetensors")}
        if (folder / STATES / f"clients-{number:04}.msgpack").is_file():
            stored = self._state(folder, f"clients-{number:04}.msgpack")
            self._clients = msgspec.msgpack.decode(stored, type=dict[PartyId, bytes])
        return self._run(saved | self._clients)

    def _state(self, folder: Path, name: str) -> bytes:
        try:
            return (folder / STATES / name).read_bytes()
        except OSError as error:
            raise StorageFailed(f"{folder / STATES / name} cannot be read: {error.strerror}") from error

    def _run(self, saved: Mapping[PartyId, bytes]) -> dict[str, Any]:
        whole = load_whole(self.federation, self.source)
        fresh = setups(self.federation, whole)
        resumed = {party: replace(setup, saved=saved.get(party, b"")) for party, setup in fresh.items()}
        self._started = time.monotonic()
        simulated = simulate(resumed, self.processes, self._watch)
        report = self._report(resumed, simulated, whole.notices)
        if self.folder is not None:
            outcome = simulated.results[self.federation.spec.roster.aggregator]
            _written(self.folder / MODEL, outcome.state)
            _written(self.folder / REPORT, json.dumps(report, indent=2).encode())
        return report

    def _watch(self, so_far: Simulated, party: PartyId, fact: Fact) -> None:
        spec = self.federation.spec
        match fact:
            case Refused(peer, text):
                self._refused.append({"peer": peer, "text": text})
                self.on_refused(text)
            case RoundDone() if party == spec.roster.aggregator:
                if self.folder is not None:
                    self._store(self.folder, fact, so_far)
                self.on_round(fact.round, fact.measures)
            case RoundDone() if self.folder is not None and spec.rounds.parts:
                self._clients[party] = fact.state

    def _store(self, folder: Path, done: RoundDone, so_far: Simulated) -> None:
        states = folder / STATES
        _written(states / f"round-{done.round:04}.safetensors", done.state)
        if self._clients:
            _written(states / f"clients-{done.round:04}.msgpack", msgspec.msgpack.encode(self._clients))
        progress = Checkpoint(
            self.federation.digest().hex(), done.round, self._lines(so_far), self._refused, self._seconds()
        )
        _written(folder / PROGRESS, msgspec.json.encode(progress))
        (states / f"clients-{done.round - 1:04}.msgpack").unlink(missing_ok=True)

    def _seconds(self) -> float:
        return self._before.seconds + time.monotonic() - self._started

    def _lines(self, simulated: Simulated) -> list[RoundTraffic]:
        """Traffic by round, direction and kind. Of what a resumed run repeats, the first time counts."""
        aggregator = self.federation.spec.roster.aggregator
        messages, sizes = Counter[tuple[int, str, str]](), Counter[tuple[int, str, str]]()
        for line in simulated.traffic:
            key = (line.round, "down" if line.sender == aggregator else "up", line.kind)
            messages[key] += 1
            sizes[key] += line.payload_bytes
        keys_before = {(line.round, line.direction, line.kind) for line in self._before.lines}
        fresh = [RoundTraffic(*key, count, sizes[key]) for key, count in messages.items() if key not in keys_before]
        return sorted([*self._before.lines, *fresh])

    def _report(self, resumed: Setups, simulated: Simulated, of_table: tuple[Notice, ...]) -> dict[str, Any]:
        spec, simulation = self.federation
        outcome: Outcome = simulated.results[spec.roster.aggregator]
        rows = [resumed[client].rows for client in spec.roster.clients]
        lines = self._lines(simulated)
        return {
            "name": spec.job.name,
            "dataset": simulation.dataset,
            "clients": len(rows),
            "cohort": spec.cohort,
            "parts": list(spec.rounds.parts),
            "rows": {
                "clients": sum(rows),
                "fewest": min(rows),
                "most": max(rows),
                **{use: len(table.columns) for use, table in resumed[spec.roster.aggregator].tables.items()},
            },
            "rounds": max(line.round for line in lines),
            "metrics": outcome.metrics,
            "series": outcome.series,
            "notices": msgspec.to_builtins([*of_table, *outcome.notices]),
            "refused": self._refused,
            "bytes": {
                **{way: sum(line.bytes for line in lines if line.direction == way) for way in ("down", "up")},
                "by_round": [msgspec.structs.asdict(line) for line in lines],
            },
            "seconds": self._seconds(),
            "processes": self.processes,
            "seed": simulation.seed,
            "specification_digest": spec.digest().hex(),
            "model_digest": hashlib.sha256(outcome.state).hexdigest(),
            "folder": str(self.folder) if self.folder is not None else None,
        }


def _written(path: Path, content: bytes) -> None:
    """Whole or not at all. Raises StorageFailed."""
    with _storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.part")
        beside.write_bytes(content)
        os.replace(beside, path)  # noqa: PTH105 - the name says that it is one step


@contextlib.contextmanager
def _storing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageFailed(f"{path} cannot be written: {error.strerror}") from error
