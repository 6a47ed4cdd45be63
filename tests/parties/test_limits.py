"""A specification is held to limits before anything is computed from it, stored or shown."""

import pytest

from parties.limits import STEPS, check_steps, read_limited
from vfl.errors import ImpossibleJob, SpecError

SPEC = """
job = {name = "test", task = "binary", purpose = "scores\\nfor loans"}
roster = {label = "bank", features = ["telco"]}
train = {epochs = 1, batch_rows = 64}
[data]
bank = {dataset = "table", label = "y"}
telco = {dataset = "other", columns = ["größe", "b c"]}
"""


def test_an_ordinary_specification_passes() -> None:
    assert read_limited(SPEC).job.name == "test"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("epochs = 1", "epochs = 100001", "train.epochs is 100001"),
        ("epochs = 1", f"epochs = {10**400}", "train.epochs is a number of more than twenty digits"),
        ("epochs = 1", f"epochs = 1{'0' * 5000}", "a number too long to read"),
        ("batch_rows = 64", f"batch_rows = {2**70}", "train.batch_rows"),
        ('task = "binary"', f'task = "binary", seed = {-(2**64)}', "job.seed"),
        ('task = "binary"', f'task = "binary", deadline_seconds = {10**13}', "job.deadline_seconds"),
        ('"test"', '"\\u001b[31mtest"', r"job.name holds control characters: '\x1b[31mtest'"),
        ('"b c"', '"\\u202ereversed"', "data.telco.columns holds control characters"),
        ('"test"', f'"{"x" * 201}"', "job.name holds a text of 201 letters; 200 is the most"),
        ('"b c"', ", ".join(f'"column {i}"' for i in range(7000)), "bytes, more than the"),
        ("batch_rows = 64", "batch_rows = 64, optimiser = {rate = 1e300}", "train.optimiser.rate is 1e+300"),
        (
            "batch_rows = 64",
            "batch_rows = 64, optimiser = {weight_decay = inf}",
            "weight_decay must be a finite number",
        ),
        ("[data]", 'model = {top = {kind = "mlp", hidden = [1000000]}}\n[data]', "model.top.hidden is 1000000"),
        ("[data]", f'model = {{top = {{kind = "mlp", hidden = {[4] * 9}}}}}\n[data]', "model.top.hidden has 9 layers"),
        ("job =", f"deep = {'[' * 50_000}", "nests too deeply"),
    ],
)
def test_what_no_party_could_raise_is_refused_by_name(old: str, new: str, told: str) -> None:
    with pytest.raises(SpecError) as refused:
        read_limited(SPEC.replace(old, new))
    assert told in str(refused.value)


def test_the_steps_of_a_job_are_bounded_before_they_are_planned() -> None:
    spec = read_limited(SPEC.replace("epochs = 1", "epochs = 100000"))
    check_steps(spec, 640)
    with pytest.raises(ImpossibleJob, match=f"{STEPS} is the most"):
        check_steps(spec, 704)
