"""What a job opens and costs is known, and an impossible job refused, before anything runs."""

import msgspec
import numpy as np
import pytest

from vfl.errors import ImpossibleJob
from vfl.kinds import read_spec_as
from vfl.planning.training import plan, resolve
from vfl.schedule import batch_sizes, batches, blocks, held_out
from vfl.spec.encryption import NoEncryption
from vfl.spec.training import Model, Top, TrainingSpec

COLUMNS = [f"c{i}" for i in range(20)]


def spec(task="binary", epochs=10, batch_rows=256, columns=COLUMNS, **encryption):
    classes = "classes = 10" if task == "multiclass" else ""
    options = ", ".join(f"{key} = {value!r}" for key, value in encryption.items())
    return read_spec_as(
        TrainingSpec,
        f"""
    encryption = {{ {options} }}
    [job]
    name = "test"
    task = "{task}"
    {classes}
    [roster]
    label = "l"
    features = ["f"]
    [data.l]
    dataset = "l"
    label = "y"
    columns = {COLUMNS[:10]}
    [data.f]
    dataset = "f"
    columns = {columns}
    [train]
    epochs = {epochs}
    batch_rows = {batch_rows}
    """,
    )


def test_the_plan_counts_what_each_step_and_the_job_reveal():
    planned = plan(resolve(spec()), 569)
    assert (planned.training_rows, planned.test_rows, planned.steps) == (455, 114, 20)
    assert planned.opened_per_step == 31
    assert planned.minimum_batch == 124
    assert planned.rho == pytest.approx(20 / 455)
    assert planned.guards_deviating_label_party
    revealed = {line.message: line.values for line in planned.reveals if line.values}
    assert revealed == {"RowsDigest": 2, "OpenedGradient": 620, "EncryptedScores": 114}


def test_in_clear_training_every_value_is_revealed():
    planned = plan(resolve(spec(scheme="none")), 569)
    revealed = {line.message: line.values for line in planned.reveals if line.values}
    assert revealed == {"RowsDigest": 2, "Embedding": 455 * 10 * 20, "EvaluationRows": 114 * 20}


def test_a_step_that_opens_more_than_a_key_may_is_refused_and_the_way_out_named():
    with pytest.raises(ImpossibleJob, match="one step opens 310 values, more than the 200") as raised:
        plan(resolve(spec("multiclass")), 2000)
    assert "values_per_key up to 4096" in raised.value.fix
    roomy = plan(resolve(spec("multiclass", values_per_key=4096)), 2000)
    assert not roomy.guards_deviating_label_party


def test_a_model_too_deep_for_the_preset_is_refused():
    with pytest.raises(ImpossibleJob, match="too deep for the preset"):
        plan(resolve(spec(preset="ckks-linear", loss_error="cubic")), 2000)


def test_a_batch_wider_than_the_slots_goes_in_blocks_of_nearly_one_size():
    planned = plan(resolve(spec(batch_rows=8192)), 20000)
    assert planned.steps == 20
    parts = blocks(np.arange(8192), 4096)
    assert [len(part) for part in parts] == [4096, 4096]
    assert [len(part) for part in blocks(np.arange(5000), 4096)] == [2500, 2500]
    assert np.concatenate(parts).tolist() == list(range(8192))


@pytest.mark.parametrize(("scheme", "message"), [("ckks", "too deep for the preset"), ("none", "in clear either")])
def test_a_second_hidden_layer_is_refused_in_either_scheme(scheme, message):
    two = msgspec.structs.replace(spec(scheme=scheme), model=Model(top=Top(kind="mlp", hidden=(8, 4))))
    with pytest.raises(ImpossibleJob, match=message):
        plan(resolve(two), 20000)


@pytest.mark.parametrize(("top", "limit", "largest"), [("linear", 13.0, "12"), ("mlp", 12.5, "12")])
def test_weights_beyond_what_a_preset_allows_are_refused_with_its_largest_limit(top, limit, largest):
    wanted = spec(columns=["c0"], values_per_key=4096)
    model = Model(top=Top(kind=top, hidden=(4,) if top == "mlp" else ()))
    train = msgspec.structs.replace(wanted.train, weight_limit=limit)
    with pytest.raises(ImpossibleJob, match=f"weight_limit = {limit:g} is too large for preset ckks-{top}") as raised:
        plan(resolve(msgspec.structs.replace(wanted, model=model, train=train)), 10_000)
    assert raised.value.fix.startswith(f"Use at most {largest}")


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(ImpossibleJob, match="there is no preset 'fast'") as raised:
        resolve(spec(preset="fast"))
    assert "ckks-linear" in raised.value.fix


def test_the_preset_and_the_cap_are_filled_in_before_the_proposal():
    assert resolve(spec()).ckks.preset == "ckks-linear"
    assert resolve(spec(loss_error="cubic")).ckks.preset == "ckks-linear-cubic"
    assert resolve(spec("regression")).ckks.preset == "ckks-linear-squared"
    assert resolve(spec(scheme="none")).encryption == NoEncryption()
    assert resolve(spec()).ckks.values_per_key == 200
    assert resolve(resolve(spec())) == resolve(spec())


@pytest.mark.parametrize(
    ("rows", "batch_rows", "sizes"),
    [
        (455, 256, [256, 199]),
        (300, 256, [300]),
        (100, 256, [100]),
        (512, 256, [256, 256]),
        (1, 64, [1]),
        (5, 3, [3, 2]),
    ],
)
def test_a_last_batch_shorter_than_half_joins_the_one_before(rows, batch_rows, sizes):
    assert batch_sizes(rows, batch_rows) == sizes


def test_batches_cover_every_training_row_once_an_epoch_in_another_order():
    train, test = held_out(b"seed", 569, 0.2)
    assert sorted([*train, *test]) == list(range(569))
    steps = list(batches(b"seed", train, 2, 256))
    first, second = ([r for s in steps if s.epoch == epoch for r in s.rows] for epoch in (1, 2))
    assert sorted(first) == sorted(second) == sorted(train)
    assert first != second
    assert [s.step for s in steps] == [1, 2, 3, 4]
    assert [s.last_of_epoch for s in steps] == [False, True, False, True]


def test_the_schedule_is_frozen_so_that_both_sides_agree_across_releases():
    (batch,) = batches(b"seed", held_out(b"seed", 12, 0.25)[0], 1, 64)
    assert batch.rows.tolist() == [0, 2, 7, 6, 4, 11, 1, 5, 10]


def test_a_plan_travels_as_numbers_only():
    assert msgspec.json.encode(plan(resolve(spec()), 569))
