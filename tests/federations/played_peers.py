"""A job of rounds of which one party is real: a test plays the others, and may break every rule."""

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
from identities import acquaint, identity_of, signed_by
from registered_tables import register

from parties.party import Party
from parties.server_settings import ServerSettings
from parties.settings import Acceptance, PartySettings
from parties.storage.database import Event, Job
from parties.trust.contract import Signed
from parties.wire.control import CONTROLS, Control, decode_control, encode_control
from parties.wire.envelopes import WIRE_VERSION, Bytes, Envelope, Outgoing, read_post
from parties.wire.receipts import Reply
from parties.wire.transport import Answer, TransportFailedError
from vfl.kinds import read_spec_as
from vfl.message import Message, decode
from vfl.spec.rounds import RoundsSpec

AGGREGATOR, CLIENTS = "hub", ("ada", "bob", "cyd")
BOUND_SECONDS = 30.0
SPEC = """
[job]
name = "played"
protocol = "rounds"
task = "binary"
deadline_seconds = {deadline}
[roster]
aggregator = "hub"
clients = ["ada", "bob", "cyd"]
[data]
hub = {{test = "table"}}
ada = {{dataset = "table"}}
bob = {{dataset = "table"}}
cyd = {{dataset = "table"}}
[model]
network = "mlp"
hidden = [4]
input_shape = [2]
input_range = [0.0, 1.0]
label = "y"
[train]
batch_rows = 10
[rounds]
rounds = {rounds}
min_clients = 2
deadline_seconds = {gathering}
"""

C = TypeVar("C", bound=Control)
M = TypeVar("M", bound=Message)


def text(gathering: float = 600.0, deadline: int = 3600, rounds: int = 5) -> str:
    return SPEC.format(gathering=gathering, deadline=deadline, rounds=rounds)


def spec() -> RoundsSpec:
    return read_spec_as(RoundsSpec, text())


class PlayedPeer:
    """Hears what a real party sends it, and says what a test wants."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.party: Party
        self.share = secrets.token_bytes(32)
        self.out_of_reach = False
        self.answer = Reply(name, WIRE_VERSION)
        self.status = 202
        self._heard: list[Envelope] = []
        self._changed = threading.Condition()

    def post(self, pieces: Sequence[Bytes]) -> Answer:
        with self._changed:
            if self.out_of_reach:
                raise TransportFailedError("out of reach")
            if self.status == 202:
                self._heard += list(read_post(b"".join(pieces), self.name))
            self._changed.notify_all()
            return Answer(self.status, msgspec.json.encode(self.answer))

    def close(self) -> None:
        """Nothing is held open."""

    def hear(self, job: str, kind: type[C], attempt: int | None = None) -> tuple[C, int]:
        """(what it was told about the job, in which attempt), waited for."""
        envelope = self._await(job, kind.__name__, attempt)
        control = decode_control(envelope.header.sender, envelope.header.kind, bytes(envelope.message))
        assert isinstance(control, kind)
        return control, envelope.header.attempt

    def receive(self, job: str, kind: type[M]) -> M:
        """A message of the other side's role, waited for."""
        envelope = self._await(job, kind.__name__, None)
        message = decode(envelope.header.sender, kind.__name__, bytes(envelope.message))
        assert isinstance(message, kind)
        return message

    def _await(self, job: str, kind: str, attempt: int | None) -> Envelope:
        def found() -> list[Envelope]:
            return [
                envelope
                for envelope in self._heard
                if (envelope.header.job, envelope.header.kind) == (job, kind)
                and attempt in {None, envelope.header.attempt}
            ]

        with self._changed:
            assert self._changed.wait_for(found, BOUND_SECONDS), f"{self.name} heard no {kind}"
            return found()[-1]

    def heard(self, job: str) -> list[tuple[str, int]]:
        """(kind, attempt) of all control messages so far."""
        with self._changed:
            return [
                (envelope.header.kind, envelope.header.attempt)
                for envelope in self._heard
                if envelope.header.job == job and envelope.header.kind in CONTROLS
            ]

    def envelopes(self, job: str, attempt: int) -> list[Envelope]:
        """All of one attempt so far."""
        with self._changed:
            return [e for e in self._heard if (e.header.job, e.header.attempt) == (job, attempt)]

    def lane(self, job: str, attempt: int) -> Outgoing:
        return Outgoing(
            job, bytes.fromhex(self.party.job(job).spec_digest), attempt, identity_of(self.name), self.party.name
        )

    def signed(self, job: str, name: str = "") -> Signed:
        """Under the contract of a job that the real party knows."""
        return signed_by(name or self.name, job, bytes.fromhex(self.party.job(job).spec_digest))

    def say(self, job: str, control: Control, attempt: int = 0) -> str:
        """Envelope 0 of an attempt; answers the code of its refusal, or nothing."""
        return self.send(self.lane(job, attempt).seal(control.kind, encode_control(control)))

    def send(self, envelopes: list[Envelope]) -> str:
        answer = self.party.deliver(b"".join(bytes(piece) for e in envelopes for piece in e.pieces()))
        return msgspec.json.decode(answer.body, type=Reply).code


def party(folder: Path, name: str, peers: Sequence[PlayedPeer], timeout_seconds: float) -> Party:
    """A real one, with a table of two columns and a label."""
    folder.mkdir(exist_ok=True)
    values = np.random.default_rng(1).uniform(size=(120, 2))
    lines = ["id,a,b,y", *(f"{row},{a},{b},{int(a > b)}" for row, (a, b) in enumerate(values))]
    (folder / "table.csv").write_text("\n".join(lines))
    settings = PartySettings(
        name=name,
        server=ServerSettings(peer_timeout_seconds=timeout_seconds, jobs_per_peer=100),
        acceptance=Acceptance(
            peers=tuple(peer.name for peer in peers), datasets=("table",), schemes=("updates",), minimum_rows=100
        ),
    )
    register(folder, {"table": "table.csv"})
    acquaint(folder, {peer.name: "127.0.0.1:9" for peer in peers})
    made = Party(folder, settings, identity_of(name), {peer.name: peer for peer in peers}.__getitem__)
    for peer in peers:
        peer.party = made
    if name in CLIENTS:
        wide = {"maximum_epochs": 100_000, "maximum_opened_values": 1_000_000}
        made.consent.grant(made.request(text()), uses="standing", changes=wide)
    return made


def happened(party: Party, job: str, kind: str, count: int = 1) -> list[Event]:
    """The job's events of one kind, once there are so many."""
    seen: list[Event] = []
    while len([event for event in seen if event.kind == kind]) < count:
        more = party.events(job, len(seen), BOUND_SECONDS)
        assert more, f"{party.name} has no {kind} of {job}: {seen}"
        seen += more
    return [event for event in seen if event.kind == kind]


def until(party: Party, job: str, holds: Callable[[Job], bool]) -> Job:
    """The job, once something holds of it."""
    deadline = time.monotonic() + BOUND_SECONDS
    while not holds(found := party.job(job)):
        assert time.monotonic() < deadline, found
        time.sleep(0.01)
    return found


def ended(party: Party, job: str) -> Job:
    return until(party, job, lambda found: found.over)
