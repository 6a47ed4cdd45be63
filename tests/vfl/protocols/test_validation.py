"""The loss on validation rows between epochs: one opened number, and an end once it has ceased to fall."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from crypto.ckks_parameters import PRESETS
from vfl.errors import RemoteProtocolError, SpecError
from vfl.flow import run_together
from vfl.kinds import flow_of, kind_of
from vfl.models.tensors import load_tensors
from vfl.models.validation import Validation
from vfl.planning.training import plan, preset_of
from vfl.reports import EpochDone
from vfl.spec.split import Split
from vfl.spec.training import StopEarly

NETWORK = 'layout = "features", top = { kind = "mlp", hidden = [3] }'
BOTTOM = 'layout = "embeddings", bottom = { kind = "mlp", hidden = [4], out = 3 }'


def validated(setups, stop=None, every=1, share=0.2):
    """Setups of the same training with validation rows."""
    spec = setups["bank"].spec
    train = msgspec.structs.replace(spec.train, stop_early=stop, validate_every=every)
    spec = msgspec.structs.replace(spec, train=train, split=Split(validation=share))
    return {party: replace(setup, spec=spec) for party, setup in setups.items()}


def run(setups):
    return run_together({party: flow_of(setup) for party, setup in setups.items()})


def losses(together, party="bank"):
    measures = [fact.measures for fact in together.reports[party] if isinstance(fact, EpochDone)]
    return [each["validation_loss"] for each in measures if "validation_loss" in each]


def weights(together, party="bank"):
    return load_tensors(together.results[party].state)


def test_validation_rows_are_neither_trained_on_nor_tested_and_alike_at_both(make_setups, breast_cancer):
    setups = validated(make_setups(breast_cancer))
    for setup in setups.values():
        parts = (setup.training_rows, setup.validation_rows, setup.test_rows)
        assert sorted(np.concatenate(parts)) == list(range(569))
        assert [len(rows) for rows in parts] == [341, 114, 114]
    assert np.array_equal(setups["bank"].validation_rows, setups["telco-0"].validation_rows)
    assert np.array_equal(setups["bank"].test_rows, make_setups(breast_cancer)["bank"].test_rows)


def test_the_loss_is_the_mean_squared_error_and_goes_to_the_label_party_alone(make_setups, breast_cancer):
    setups = validated(make_setups(breast_cancer, encryption_scheme="none", train_epochs=4), every=2)
    together = run(setups)
    assert len(losses(together)) == 2
    assert not losses(together, "telco-0")
    label, rows = setups["bank"], setups["bank"].validation_rows
    order = [int(name[1:]) for party in ("telco-0", "bank") for name in label.spec.data[party].columns]
    columns = breast_cancer.columns[:, order]
    train = label.training_rows
    prepared = ((columns - columns[train].mean(0)) / columns[train].std(0)).clip(-3, 3)[rows]
    scores = prepared @ weights(together)["top.weights"][0, :-1] + weights(together)["top.weights"][0, -1]
    expected = np.square(scores / 4 + 0.5 - breast_cancer.labels[rows]).mean()
    assert losses(together)[-1] == pytest.approx(expected)
    planned = {line.message: line for line in plan(label.spec, 569).reveals}
    sent = [line for line in together.transcript if line.kind == "Embedding"]
    assert len(sent) == planned["Embedding"].messages


CASES = [
    ("breast_cancer", {"train_class_weights": "balanced"}),
    ("breast_cancer", {"encryption_loss_error": "cubic", "optimiser_rate": 0.02}),
    ("diabetes", {}),
    ("breast_cancer", {"model": NETWORK}),
    ("digits", {"encryption_values_per_key": 4096, "train_batch_rows": 1024}),
]


@pytest.mark.parametrize(("table", "options"), CASES, ids=["linear", "cubic", "squared", "network", "ten classes"])
def test_on_ciphertexts_one_sum_for_each_output_gives_the_same_loss(make_setups, request, table, options):
    joined = request.getfixturevalue(table)
    setups = validated(make_setups(joined, train_epochs=1, **options))
    spec = setups["bank"].spec
    with pytest.MonkeyPatch.context() as presets:
        bare = replace(preset_of(spec), noise=0.0, output_noise=0.0)
        presets.setitem(PRESETS, spec.ckks.preset, bare)
        together = run(setups)
    in_clear = {name: at for name, at in options.items() if name != "encryption_values_per_key"}
    clear = run(validated(make_setups(joined, train_epochs=1, encryption_scheme="none", **in_clear)))
    assert losses(together)[0] == pytest.approx(losses(clear)[0], rel=1e-2)
    planned = plan(spec, len(joined.labels))
    (opened,) = [line for line in together.transcript if line.kind == "OpenedLoss"]
    assert opened.payload_bytes < 8 * spec.outputs + 40
    told = {line.message: line for line in planned.reveals}
    assert (told["OpenedLoss"].values, told["OpenedLoss"].messages) == (spec.outputs, 1)
    for kind, due in planned.payload_bytes.items():
        travelled = sum(line.payload_bytes for line in together.transcript if line.kind == kind)
        assert travelled == pytest.approx(due, rel=0.05, abs=200), kind


def test_noise_of_the_reply_moves_the_loss_little(make_setups, breast_cancer):
    options = {"train_epochs": 3, "train_batch_rows": 256}
    encrypted = losses(run(validated(make_setups(breast_cancer, **options))))
    clear = losses(run(validated(make_setups(breast_cancer, encryption_scheme="none", **options))))
    assert np.abs(np.subtract(encrypted, clear)).max() < 0.01


@pytest.mark.parametrize("scheme", ["none", "ckks"])
@pytest.mark.parametrize("layout", ["features", "embeddings"])
def test_a_training_ends_early_and_both_halves_are_those_of_the_best_epoch(make_setups, breast_cancer, scheme, layout):
    parts = {"model": BOTTOM, "cut_noise": 'method = "none"'} if layout == "embeddings" else {}
    options = {"encryption_scheme": scheme, "train_epochs": 12, "optimiser_rate": 0.1, "train_batch_rows": 256, **parts}
    together = run(validated(make_setups(breast_cancer, **options), StopEarly(patience=1, gain=0.01)))
    measured, epochs = losses(together), len(losses(together))
    assert 1 < epochs < 12, measured
    best = int(np.argmin(measured)) + 1
    for party in ("bank", "telco-0"):
        reports = [fact for fact in together.reports[party] if isinstance(fact, EpochDone)]
        assert len(reports) == epochs
        kept, of_best = weights(together, party), load_tensors(reports[best - 1].state)
        assert all(np.array_equal(kept[name], of_best[name]) for name in of_best), party
        notices = {notice.code: notice.text for notice in together.results[party].notices}
        if best < epochs:
            assert (
                f"training ended after epoch {epochs} of 12; the weights are those of epoch {best}"
                in (notices["stopped_early"])
            )
    assert [line.message.goes_on for line in together.transcript if line.kind == "EpochJudged"] == [True] * (
        epochs - 1
    ) + [False]


def test_patience_counts_measurements_without_a_gain_and_a_loss_that_is_no_number_is_none():
    curve = Validation(StopEarly(patience=2, gain=0.1))
    for epoch, loss in enumerate([1.0, 0.95, 0.8, 0.75, float("nan")], 1):
        assert curve.goes_on
        curve.add(epoch, loss)
    assert not curve.goes_on
    assert curve.best == 4


def test_without_early_stopping_nothing_goes_back_and_no_validation_row_reaches_the_weights(make_setups, breast_cancer):
    options = {"encryption_scheme": "none", "train_epochs": 3}
    setups = validated(make_setups(breast_cancer, **options))
    rows = setups["bank"].validation_rows
    columns, labels = breast_cancer.columns.copy(), breast_cancer.labels.copy()
    columns[rows], labels[rows] = 1e6, 1 - labels[rows]
    other = replace(breast_cancer, columns=columns, labels=labels)
    first, second = run(setups), run(validated(make_setups(other, **options)))
    assert not [line for line in first.transcript if line.kind == "EpochJudged"]
    for party in ("bank", "telco-0"):
        assert all(np.array_equal(weights(first, party)[name], at) for name, at in weights(second, party).items())
    assert losses(first) != losses(second)
    assert first.results["bank"].metrics == second.results["bank"].metrics


def test_what_early_stopping_tells_is_warned_of_and_counted(make_setups, breast_cancer):
    spec = validated(make_setups(breast_cancer, train_epochs=6), StopEarly(patience=2), every=2)["bank"].spec
    planned = plan(spec, 569)
    assert {line.message: line.values for line in planned.reveals}["EpochJudged"] == 3
    warned = {notice.code: notice.text for notice in kind_of(spec).warnings(spec, planned)}
    assert "up to 3 times" in warned["early_end_tells"]
    assert planned.rho == pytest.approx(max(planned.steps / planned.training_rows, 3 / 114))
    few = validated(make_setups(breast_cancer), share=0.1)["bank"].spec
    assert plan(few, 569).smallest_batch == 57


@pytest.mark.parametrize("best", [0, 2, 9])
def test_an_epoch_that_cannot_be_best_names_the_label_party(make_setups, breast_cancer, best):
    from vfl.protocols.feature_side import FeatureSide

    setups = validated(make_setups(breast_cancer, encryption_scheme="none"), StopEarly(patience=1))
    side = FeatureSide(setups["telco-0"])
    side.judged(1, 1)
    with pytest.raises(RemoteProtocolError, match=f"bank says after epoch 3 that epoch {best} was best"):
        side.judged(3, best)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"stop": StopEarly(patience=1), "share": 0.0}, "train.stop_early needs rows to judge by"),
        ({"stop": StopEarly(patience=0)}, "train.stop_early.patience must be at least 1"),
        ({"stop": StopEarly(patience=1, gain=-1.0)}, "train.stop_early.gain must be a finite number"),
        ({"every": 3}, "train.validate_every must lie between 1 and train.epochs"),
        ({"every": 2, "share": 0.0}, "train.validate_every needs rows"),
        ({"share": 0.8}, "leave no row to train on"),
    ],
)
def test_settings_that_contradict_themselves_are_refused_by_name(make_setups, breast_cancer, change, told):
    with pytest.raises(SpecError) as refused:
        validated(make_setups(breast_cancer), **change)
    assert told in str(refused.value)
