"""The table "what each side could see" counts every message that tells something, in every job that may send it."""

import msgspec
import pytest
import rounds_federation
from alignment_parties import specification as alignment_of

from vfl.kinds import kind_of, read_spec_as
from vfl.message import MESSAGES, Grain
from vfl.spec.job import JobSpec
from vfl.spec.one_pass import OnePassSpec
from vfl.spec.prediction import PredictionSpec
from vfl.spec.rounds import RoundsSpec
from vfl.spec.rounds_settings import RoundsData
from vfl.spec.training import TrainingSpec

ROWS = 1000
BOTTOM = """
bottom = {kind = "mlp", hidden = [4], out = 2}
"""


def training(scheme: str, layout: str, top: str = '{kind = "linear"}') -> TrainingSpec:
    has_bottom, is_validated = layout == "embeddings", scheme != "paillier"
    return read_spec_as(
        TrainingSpec,
        f"""
job = {{name = "test", task = "binary"}}
roster = {{label = "bank", features = ["telco"]}}
train = {{epochs = 2, batch_rows = 256{", stop_early = {patience = 1}" if is_validated else ""}}}
split = {{stratify = true{", validation = 0.1" if is_validated else ""}}}
encryption = {{scheme = "{scheme}"}}
{'protection = {cut_noise = {method = "none"}}' if has_bottom else ""}
[model]
layout = "{layout}"
top = {top}
{BOTTOM if has_bottom else ""}
[data]
bank = {{dataset = "table", label = "y", columns = ["a"]}}
telco = {{dataset = "other", columns = ["b", "c"]}}
""",
    )


def one_pass() -> OnePassSpec:
    text = """
job = {name = "test", protocol = "one_pass", task = "binary"}
roster = {label = "bank", features = ["telco"]}
split = {stratify = true}
[data]
bank = {dataset = "table", label = "y", columns = ["a"]}
telco = {dataset = "other", columns = ["b", "c"]}
"""
    return read_spec_as(OnePassSpec, text)


def rounds(extra: str = "", tables: tuple[str, ...] = (), parts: tuple[str, ...] = ()) -> RoundsSpec:
    return rounds_federation.spec(parts=parts, extra=extra, tables=tables, min_clients=3)


def measured_at_clients(spec: RoundsSpec) -> RoundsSpec:
    """Only clients have test rows, and no range of the columns is agreed: both need sums over the clients."""
    data = {client: RoundsData(dataset="rows", test="test-rows") for client in spec.roster.clients}
    model = msgspec.structs.replace(spec.model, input_range=None)
    return msgspec.structs.replace(spec, data=data, model=model)


def session(trained: TrainingSpec) -> PredictionSpec:
    text = """
job = {name = "test", protocol = "prediction"}
roster = {label = "bank", features = ["telco"]}
model = {training = "0"}
session = {minutes = 5}
data = {bank = {dataset = "new"}, telco = {dataset = "new"}}
"""
    return read_spec_as(PredictionSpec, text).with_training(kind_of(trained).resolve(trained))


JOBS: dict[str, JobSpec] = {
    "alignment": alignment_of(),
    "alignment, size-only": alignment_of(reveal="size-only"),
    "alignment of many": alignment_of("bank", "telco", "shop"),
    "alignment of many, size-only": alignment_of("bank", "telco", "shop", reveal="size-only"),
    "clear, features": training("none", "features"),
    "clear, embeddings": training("none", "embeddings"),
    "encrypted, features": training("ckks", "features"),
    "encrypted, embeddings": training("ckks", "embeddings"),
    "encrypted, hidden neurons": training("ckks", "features", '{kind = "mlp", hidden = [4]}'),
    "encrypted with Paillier": training("paillier", "features"),
    "one pass": one_pass(),
    "a scoring session": session(training("ckks", "features")),
    "a scoring session of hidden neurons": session(training("ckks", "features", '{kind = "mlp", hidden = [4]}')),
    "a scoring session in clear": session(training("none", "features")),
    "rounds": rounds(tables=("test",)),
    "rounds under secure sums, measured at the clients": measured_at_clients(rounds("secure_sum = true", ("test",))),
    "rounds with shared rows": rounds(
        '[rounds.shared_data]\nrule = "share"', ("test", "shared"), parts=("shared_data",)
    ),
}


@pytest.mark.parametrize("name", JOBS)
def test_every_message_that_tells_something_is_counted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind that the plan does not count would show "0 values", or nothing."""
    # What is counted is the same at a party that has not installed what the job needs.
    monkeypatch.setattr("vfl.planning.training.missing_packages", tuple)
    kind_of_job = kind_of(JOBS[name])
    spec = kind_of_job.resolve(JOBS[name])
    planned = kind_of_job.plan(spec, spec.coordinator, ROWS)
    lines = {(line.message, line.sender, line.receiver): line for line in planned.reveals}
    for route in kind_of_job.routes(spec):
        kind = route.message.kind()
        found = [
            line
            for (message, sender, receiver), line in lines.items()
            if (message, spec.role_of(sender), spec.role_of(receiver)) == (kind, route.sender, route.receiver)
        ]
        assert found, f"the plan has no line for {kind}"
        for line in found:
            assert line.grain == route.message.reveals.grain.value
            if route.message.reveals.grain is not Grain.NOTHING:
                assert line.values > 0, f"the values of {kind} are not counted"


def test_every_message_stands_in_one_of_these_jobs() -> None:
    """Whoever adds a message adds a job that sends it."""
    routed = {route.message.kind() for spec in JOBS.values() for route in kind_of(spec).routes(spec)}
    assert routed == set(MESSAGES)


def test_a_client_may_be_drawn_for_every_round_and_is_counted_so() -> None:
    """The table tells the most that one client sends, and no mean over the clients that a round may draw."""
    spec = rounds_federation.spec(clients=10, per_round=3, rounds=20, tables=("test",))
    planned = kind_of(spec).plan(spec, spec.coordinator, ROWS)
    counted = {line.message: line.values for line in planned.reveals}
    assert (counted["RoundTask"], counted["RoundReply"]) == (20, 20)
