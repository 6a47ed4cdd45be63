"""What is counted of a job before it runs is what its roles then do and send."""

import time
from collections import Counter
from typing import Any

import numpy as np
import pytest

from api.demo.rounds.agreement import agree_on_rounds
from api.demo.rounds.modes import MODES
from api.demo.training.agreement import agree
from api.demo.training.tables import breast_cancer
from vfl.flow import Together, run_together
from vfl.ids import HASH_BYTES, HashedIds
from vfl.kinds import flow_of, kind_of, read_spec
from vfl.planning.work import SECONDS, TableRows, Turn, bytes_sent
from vfl.reports import Outcome
from vfl.setup import Setup, Table
from vfl.spec.job import JobSpec
from vfl.spec.training import TrainingSpec

SEED = bytes(32)
TABLE = breast_cancer()
WITHIN = 0.05
TRAININGS: dict[str, dict[str, Any]] = {
    "clear": {"scheme": "none"},
    "linear": {"scheme": "ckks"},
    "mlp": {"scheme": "ckks", "top": "mlp"},
    "embeddings": {"scheme": "ckks", "layout": "embeddings"},
    "clear embeddings": {"scheme": "none", "layout": "embeddings"},
}
ALIGNMENT = """
[job]
name = "common"
protocol = "alignment"
[roster]
parties = [{parties}]
[align]
minimum_ids = 1
{data}
"""


def work(spec: JobSpec, rows: TableRows) -> list[Turn]:
    return list(kind_of(spec).work(spec, rows, time.process_time))


def counts(turns: list[Turn]) -> Counter[str]:
    total: Counter[str] = Counter()
    for turn in turns:
        for counted in turn.work.values():
            total.update({operation: round(turn.times * count) for operation, count in counted.items()})
    return total


def trained(spec: TrainingSpec) -> Together[Outcome]:
    draws = np.random.default_rng(0)
    roles = {}
    for party in spec.parties:
        columns = draws.standard_normal((TABLE.rows, len(spec.data[party].columns)))
        labels = (np.arange(TABLE.rows) % 2).astype(np.float64) if party == spec.roster.label else None
        roles[party] = flow_of(Setup(spec, party, {"rows": Table(SEED, columns, labels)}, SEED, SEED))
    return run_together(roles)


def sent(together: Together[Outcome]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for line in together.transcript:
        total[line.sender] += line.payload_bytes
    return dict(total)


@pytest.mark.parametrize("how", TRAININGS.values(), ids=TRAININGS)
def test_a_training_does_the_work_and_sends_the_bytes_that_were_counted(how: dict[str, Any]) -> None:
    spec = agree(TABLE, epochs=1, seed=0, **how).spec
    turns, together = work(spec, {party: {"rows": TABLE.rows} for party in spec.parties}), trained(spec)
    for party, size in sent(together).items():
        assert bytes_sent(turns)[party] == pytest.approx(size, rel=WITHIN, abs=2000)
    counted, done = counts(turns), Counter[str]()
    for outcome in together.results.values():
        done.update(outcome.operations)
    primes = "2" if not spec.hidden else "5"
    assert counted[f"ckks/encrypted column@{primes}"] == done["encrypt"]
    assert counted[f"ckks/loaded column@{primes}"] == done["load"]
    assert counted["ckks/opened value"] == done["open value"]
    assert counted[f"ckks/key@{primes}"] == done["make key"]
    assert counted["ckks/packed value, encrypted"] + counted["ckks/packed value, clear"] == done["release value"]
    assert counted["ckks/decrypted cut error"] == done["decrypt"]


@pytest.mark.parametrize("number", [2, 3])
def test_an_alignment_sends_the_bytes_that_were_counted(number: int) -> None:
    names = ["bank", "telco", "shop"][:number]
    listed = ", ".join(f'"{name}"' for name in names)
    data = "\n".join(f'[data.{name}]\ndataset = "people"\nid = ["customer"]' for name in names)
    spec, ids = read_spec(ALIGNMENT.format(parties=listed, data=data)), 2000
    hashes = np.random.default_rng(0).integers(0, 256, (ids, HASH_BYTES)).astype(np.uint8)
    tables = {"rows": Table(SEED, np.zeros((ids, 0)), ids=HashedIds(hashes, np.arange(ids)))}
    turns = work(spec, {name: {"rows": ids} for name in names})
    together = run_together({name: flow_of(Setup(spec, name, tables, SEED, SEED)) for name in names})
    for party, size in sent(together).items():
        assert bytes_sent(turns)[party] == pytest.approx(size, rel=WITHIN, abs=2000)
    counted = counts(turns)
    assert counted["ristretto/hashed id"] == number * ids
    assert counted["ristretto/power"] == number * (number - 1) * ids


def test_rounds_are_rehearsed_by_their_roles_and_timed_for_each_party() -> None:
    spec = agree_on_rounds(MODES["shared-data"], rounds=None, seed=0).spec
    rows = {party: dict.fromkeys(spec.tables_of(party), 64) for party in spec.parties}
    ticks = iter(range(1_000_000))
    turns = list(kind_of(spec).work(spec, rows, lambda: float(next(ticks))))
    seconds = dict.fromkeys(spec.parties, 0.0)
    for turn in turns:
        for party, counted in turn.work.items():
            seconds[party] += turn.times * counted.get(SECONDS, 0.0)
    assert all(seconds.values())
    assert sum(turn.times for turn in turns if turn.phase == "steps" and spec.roster.aggregator in turn.work) == 20
