"""A training that starts from the halves of another goes on where that ended, and from no other model."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from vfl.errors import ImpossibleJob, ModelUnfit
from vfl.flow import run_together
from vfl.kinds import flow_of, kind_of
from vfl.models.tensors import load_tensors
from vfl.spec.preparation import Quantile
from vfl.spec.training import Top

BOTTOM = 'layout = "embeddings", bottom = { kind = "mlp", hidden = [4], out = 3 }'


def starting(setups, halves):
    spec = setups["bank"].spec
    spec = msgspec.structs.replace(spec, model=msgspec.structs.replace(spec.model, start_from="first"))
    return {party: replace(setup, spec=spec, model=halves[party]) for party, setup in setups.items()}


def run(setups):
    together = run_together({party: flow_of(setup) for party, setup in setups.items()})
    return {party: outcome.state for party, outcome in together.results.items()}


@pytest.mark.parametrize("table", ["breast_cancer", "diabetes"])
@pytest.mark.parametrize("layout", ["features", "embeddings"])
def test_both_halves_begin_where_the_first_training_ended(make_setups, request, table, layout):
    joined = request.getfixturevalue(table)
    parts = {"model": BOTTOM, "cut_noise": 'method = "none"'} if layout == "embeddings" else {}
    options = {"encryption_scheme": "none", **parts}
    first = run(make_setups(joined, **options))
    second = run(starting(make_setups(joined, **options, optimiser_rate=1e-12), first))
    for party, half in first.items():
        for name, tensor in load_tensors(half).items():
            np.testing.assert_allclose(load_tensors(second[party])[name], tensor, atol=1e-8)


def test_nothing_is_fitted_anew_on_other_rows(make_setups, breast_cancer):
    options = {"encryption_scheme": "none"}
    first = run(make_setups(breast_cancer, **options))
    other = replace(breast_cancer, columns=breast_cancer.columns[:300] * 2, labels=breast_cancer.labels[:300])
    second = run(starting(make_setups(other, **options), first))
    for party in first:
        before, after = load_tensors(first[party]), load_tensors(second[party])
        assert np.array_equal(before["preparation"], after["preparation"])


def test_a_warm_start_reaches_a_lower_error_in_an_encrypted_epoch(make_setups, breast_cancer):
    first = run(make_setups(breast_cancer, encryption_scheme="none", train_epochs=10))
    options = {"train_epochs": 1, "train_batch_rows": 256}

    def auc(setups):
        together = run_together({party: flow_of(setup) for party, setup in setups.items()})
        return together.results["bank"].metrics["auc"]

    warm = starting(make_setups(breast_cancer, **options), first)
    assert auc(warm) > auc(make_setups(breast_cancer, **options, optimiser_rate=0.001))


def test_halves_of_another_shape_are_refused(make_setups, breast_cancer, diabetes):
    options = {"encryption_scheme": "none"}
    first = run(make_setups(diabetes, **options))
    with pytest.raises(ModelUnfit):
        run(starting(make_setups(breast_cancer, **options), first))


def test_a_model_of_another_specification_is_refused_by_what_differs(make_setups, breast_cancer):
    trained = make_setups(breast_cancer)["bank"].spec
    kind, replaced = kind_of(trained), msgspec.structs.replace
    spec = replaced(trained, model=replaced(trained.model, start_from="first"))
    assert kind.applying(spec, trained) == spec
    bank = replaced(spec.data["bank"], prepare=(Quantile(),))
    changes = [
        ({"data": spec.data | {"bank": bank}}, "data.bank.prepare"),
        ({"model": replaced(spec.model, top=Top(kind="mlp", hidden=(3,)))}, "model.top"),
        ({"data": spec.data | {"bank": replaced(bank, columns=("c10",), prepare=())}}, "data.bank.columns"),
    ]
    for change, told in changes:
        with pytest.raises(ImpossibleJob) as refused:
            kind.applying(replaced(spec, **change), trained)
        assert str(refused.value).endswith(f"the training first is of another model, by {told}")
    longer = replaced(spec, train=replaced(spec.train, epochs=9))
    assert kind.applying(longer, trained) == longer
