"""Parties of one process, joined in memory, each with its own worker processes."""

import contextlib
import gc
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from identities import acquaint, identity_of
from registered_tables import register

from parties.errors import IdempotencyKeyReused, UnknownJob
from parties.jobs.supervisor import Supervisor
from parties.party import Party
from parties.settings import Acceptance, PartySettings
from parties.storage.database import Job
from parties.wire.transport import Answer, LocalTransport

NAMES = ("bank", "shop", "telco")
BOUND = 60.0
SPEC = """
job = {name = "three", task = "regression", seed = 1}
roster = {label = "bank", features = ["telco", "shop"]}
train = {epochs = 2, batch_rows = 32}
encryption = {scheme = "none"}
[data]
bank = {dataset = "table", columns = ["x0"], label = "y"}
telco = {dataset = "table", columns = ["x1", "x2"]}
shop = {dataset = "table", columns = ["x3"]}
"""


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Party]]:
    root = tmp_path_factory.mktemp("federation")
    parties: dict[str, Party] = {}
    random = np.random.default_rng(3)
    values = random.normal(size=(120, 4))
    holds = {"bank": ["x0", "y"], "telco": ["x1", "x2"], "shop": ["x3"]}
    table = {f"x{i}": values[:, i] for i in range(4)} | {"y": values.sum(axis=1)}
    with contextlib.ExitStack() as stack:
        for name in NAMES:
            folder = root / name
            folder.mkdir()
            lines = [",".join(["id", *holds[name]])]
            lines += [",".join([f"r{row}", *(str(table[c][row]) for c in holds[name])]) for row in range(120)]
            (folder / "table.csv").write_text("\n".join(lines))
            settings = PartySettings(
                name=name,
                acceptance=Acceptance(
                    peers=NAMES, datasets=("table",), schemes=("none",), fixed_seed=True, minimum_rows=100
                ),
            )
            register(folder, {"table": "table.csv"})
            links = {"bank": ("telco", "shop")}.get(name, ("bank",))
            acquaint(folder, dict.fromkeys(links, "127.0.0.1:9"))
            parties[name] = Party(folder, settings, identity_of(name), partial(local, parties))
            stack.callback(parties[name].close)
            if name != "bank":
                parties[name].consent.grant(parties[name].request(SPEC), uses="standing")
        yield parties


def local(parties: dict[str, Party], peer: str) -> LocalTransport:
    def deliver(post: bytes) -> Answer:
        return parties[peer].deliver(post)

    return LocalTransport(deliver)


def over(party: Party, job: str) -> Job:
    """Wait for the job's end by its events."""
    last, bound = 0, threading.Event()
    timer = threading.Timer(BOUND, bound.set)
    timer.start()
    try:
        while not party.job(job).over and not bound.is_set():
            found = party.events(job, last, 5.0)
            last = found[-1].number if found else last
    finally:
        timer.cancel()
    return party.job(job)


def test_a_label_party_trains_with_two_feature_parties(federation: dict[str, Party]) -> None:
    job = federation["bank"].submit(SPEC)
    ended = {name: over(party, job.id) for name, party in federation.items()}
    assert {found.state for found in ended.values()} == {"done"}, [found.error for found in ended.values()]
    assert len({found.spec_digest for found in ended.values()}) == 1
    assert ended["telco"].peers == ["bank"]


def test_a_job_that_is_over_leaves_neither_tables_nor_model_in_memory(federation: dict[str, Party]) -> None:
    """All of them hang on its supervisors."""
    job = federation["bank"].submit(SPEC).id
    assert {over(party, job).state for party in federation.values()} == {"done"}
    deadline = time.monotonic() + BOUND
    while left := [thing for thing in gc.get_objects() if type(thing) is Supervisor and thing.job == job]:
        assert time.monotonic() < deadline, left
        del left
        gc.collect()
        time.sleep(0.05)


def test_a_refusal_of_one_feature_party_ends_the_job_at_all(federation: dict[str, Party]) -> None:
    job = federation["bank"].submit(SPEC.replace('["x3"]', '["x9"]'))
    ended = {name: over(party, job.id) for name, party in federation.items()}
    assert {found.state for found in ended.values()} == {"failed"}
    codes = {name: found.error["code"] for name, found in ended.items() if found.error}
    assert codes == {"bank": "invalid_data", "shop": "unknown_column", "telco": "invalid_data"}
    assert ended["bank"].error is not None
    assert ended["bank"].error["side"] == "shop"


def test_a_repeated_submission_with_one_key_is_one_job(federation: dict[str, Party]) -> None:
    bank = federation["bank"]
    first, again = bank.submit(SPEC, "key"), bank.submit(SPEC, "key")
    assert first.id == again.id
    with pytest.raises(IdempotencyKeyReused):
        bank.submit(SPEC.replace("epochs = 2", "epochs = 1"), "key")
    assert bank.cancel(first.id).state == "cancelled"


def test_an_unknown_job_is_named(federation: dict[str, Party]) -> None:
    for question in (federation["bank"].job, federation["bank"].cancel):
        with pytest.raises(UnknownJob):
            question("none")


def test_a_private_database(federation: dict[str, Party], tmp_path: Path) -> None:
    for party in federation.values():
        assert (party.folder / "party.db").stat().st_mode & 0o077 == 0
