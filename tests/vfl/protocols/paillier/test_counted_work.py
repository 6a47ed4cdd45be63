"""What is counted of a training on Paillier ciphertexts is what its roles then do and send."""

import time
from collections import Counter

import pytest

from crypto.paillier_costs import costs
from vfl.kinds import kind_of
from vfl.planning.work import bytes_sent, operations

KEY_BITS = 2048


@pytest.fixture(scope="module")
def trained(federation, breast_cancer):
    spec, together = federation(
        breast_cancer,
        encryption_scheme="paillier",
        encryption_key_bits=KEY_BITS,
        train_epochs=2,
        train_batch_rows=256,
    )
    rows = {party: {"rows": len(breast_cancer.labels)} for party in spec.parties}
    return list(kind_of(spec).work(spec, rows, time.process_time)), together


def test_it_sends_the_bytes_that_were_counted(trained):
    turns, together = trained
    sent: Counter[str] = Counter()
    for line in together.transcript:
        sent[line.sender] += line.payload_bytes
    for party, size in sent.items():
        assert bytes_sent(turns)[party] == pytest.approx(size, rel=0.05, abs=2000)


def test_it_does_the_work_that_was_counted(trained):
    turns, together = trained
    counted, done = Counter[str](), Counter[str]()
    for turn in turns:
        for counts in turn.work.values():
            counted.update({operation: round(turn.times * count) for operation, count in counts.items()})
    for outcome in together.results.values():
        done.update(outcome.operations)
    assert counted[f"paillier/encryption@{KEY_BITS}"] == done["encrypt"]
    assert counted[f"paillier/opened@{KEY_BITS}"] == done["open"]
    assert counted[f"paillier/key@{KEY_BITS}"] == done["make key"] == 1


def test_each_operation_that_is_counted_is_measured(trained):
    turns, _ = trained
    measured = {f"paillier/{operation}" for operation, _ in costs(time.process_time)}
    assert {each for each in operations(turns) if each.startswith("paillier/")} - {"paillier/start"} <= measured
