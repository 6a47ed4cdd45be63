"""New rows scored jointly by two halves: equal to what the halves make of them in clear, and told to one party."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from vfl.errors import ImpossibleJob, ModelUnfit, RowsDiffer
from vfl.flow import run_together
from vfl.kinds import flow_of, kind_of, read_spec_as
from vfl.message import Grain
from vfl.models.tensors import load_tensors, save_tensors
from vfl.planning.prediction import largest_messages, plan
from vfl.protocols.halves_together import score_together
from vfl.reports import StepDone
from vfl.setup import Setup, Table
from vfl.spec.prediction import PredictionSpec

NEW = 400
PREDICTION = """
job = {{ name = "new rows", protocol = "prediction" }}
roster = {{ label = "bank", features = {features} }}
model = {{ training = "0123" }}
[data]
bank = {{ dataset = "new" }}
{brought}
"""


def prediction(training):
    features = list(training.roster.features)
    brought = "\n".join(f'{feature} = {{ dataset = "new" }}' for feature in features)
    spec = read_spec_as(PredictionSpec, PREDICTION.format(features=features, brought=brought))
    return kind_of(spec).applying(spec, training)


def new_rows(joined):
    """Nobody has trained on them: each is one of the table, moved a little."""
    random = np.random.default_rng(3)
    rows = joined.columns[random.integers(0, len(joined.columns), NEW)]
    return rows + random.normal(size=rows.shape) * joined.columns.std(axis=0) / 10


def setups(training, together, joined):
    spec, columns = prediction(training), new_rows(joined)

    def setup(party):
        own = columns[:, [int(name[1:]) for name in training.data[party].columns]]
        return Setup(
            spec, party, {"rows": Table(bytes(32), own)}, bytes(32), bytes(32), model=together.results[party].state
        )

    return {party: setup(party) for party in spec.parties}


def scored(given):
    return run_together({party: flow_of(setup) for party, setup in given.items()})


def in_clear(given):
    """As the halves score, brought together."""
    halves = {party: setup.model for party, setup in given.items()}
    return score_together(given["bank"].spec.trained, halves, {party: setup.table for party, setup in given.items()})


BOTTOM = {"model": 'layout = "embeddings", bottom = {hidden = [4], out = 4}', "cut_noise": 'method = "none"'}
ONE_STEP = {"train_epochs": 1, "train_batch_rows": 455}
MODELS = [
    ("breast_cancer", {}, 1e-3),
    ("breast_cancer", {"model": 'top = {kind = "mlp", hidden = [4]}', **ONE_STEP}, 5e-3),
    ("breast_cancer", {**BOTTOM, **ONE_STEP}, 1e-3),
    ("diabetes", {}, 1e-3),
    ("digits", {"encryption_values_per_key": 4096, "train_batch_rows": 1024, "train_epochs": 1}, 1e-3),
]
"""The last is seven or eight deviations of the noise that the key owner adds to a score."""


@pytest.mark.parametrize(
    ("table", "options", "largest_error"),
    MODELS,
    ids=["linear", "hidden neurons", "bottom model", "regression", "ten classes"],
)
def test_joint_scores_on_ciphertexts_equal_those_of_the_halves_in_clear(
    federation, request, table, options, largest_error
):
    joined = request.getfixturevalue(table)
    training, together = federation(joined, **options)
    given = setups(training, together, joined)
    result = scored(given)
    scores = load_tensors(result.results["bank"].state)["scores"]
    unit = joined.labels.std() if table == "diabetes" else 1.0
    assert scores.shape == (NEW, training.outputs)
    assert np.abs(scores - in_clear(given)).max() < largest_error * unit
    assert load_tensors(result.results["telco-0"].state) == {}


@pytest.mark.parametrize("feature_parties", [1, 2])
def test_a_model_that_was_trained_in_clear_scores_in_clear(federation, breast_cancer, feature_parties):
    training, together = federation(breast_cancer, encryption_scheme="none", feature_parties=feature_parties)
    given = setups(training, together, breast_cancer)
    scores = load_tensors(scored(given).results["bank"].state)["scores"]
    assert np.abs(scores - in_clear(given)).max() <= 0.5e-4 + 1e-12


def test_messages_are_those_of_the_plan_and_progress_is_told(federation, breast_cancer):
    training, together = federation(breast_cancer, train_epochs=1)
    given = setups(training, together, breast_cancer)
    result, expected = scored(given), plan(given["bank"].spec, NEW)
    revealing = {line.message: line for line in expected.reveals if line.grain != Grain.NOTHING.value}
    assert set(revealing) == {"RowsDigest", "EncryptedScores"}
    sent = [line for line in result.transcript if line.kind == "EncryptedScores"]
    assert len(sent) == revealing["EncryptedScores"].messages == expected.steps
    assert sum(len(line.message.coefficients) // 7 for line in sent) == revealing["EncryptedScores"].values == NEW
    largest = largest_messages(given["bank"].spec, NEW)
    for kind, forecast in expected.payload_bytes.items():
        sizes = [line.payload_bytes for line in result.transcript if line.kind == kind]
        assert sum(sizes) == pytest.approx(forecast, rel=0.05)
        assert max(sizes) <= largest[kind] * 1.05
    for facts in result.reports.values():
        assert [fact.step for fact in facts if isinstance(fact, StepDone)] == list(range(1, expected.steps + 1))


def test_the_feature_party_receives_encrypted_weights_and_no_score(federation, breast_cancer):
    training, together = federation(breast_cancer, train_epochs=1)
    given = setups(training, together, breast_cancer)
    received = {line.kind for line in scored(given).transcript if line.receiver == "telco-0"}
    assert received == {"RowsDigest", "EncryptedWeights"}


def test_other_rows_at_the_two_sides_end_the_job_before_anything_is_scored(federation, breast_cancer):
    training, together = federation(breast_cancer, train_epochs=1)
    given = setups(training, together, breast_cancer)
    other = replace(given["telco-0"].table, ids_digest=bytes(31) + b"1")
    given["telco-0"] = replace(given["telco-0"], tables={"rows": other})
    with pytest.raises(RowsDiffer):
        scored(given)


def test_a_half_of_another_model_is_refused_by_its_owner(federation, make_setups, breast_cancer, diabetes):
    training, together = federation(breast_cancer, train_epochs=1)
    given = setups(training, together, breast_cancer)
    _, other = federation(diabetes, train_epochs=1)
    with pytest.raises(ModelUnfit, match="half of the model that bank holds"):
        scored(given | {"bank": replace(given["bank"], model=other.results["bank"].state)})
    with pytest.raises(ModelUnfit, match="prepares other columns"):
        scored(given | {"telco-0": replace(given["telco-0"], model=other.results["telco-0"].state)})
    with pytest.raises(ModelUnfit, match="does not say how its columns are prepared"):
        scored(given | {"telco-0": replace(given["telco-0"], model=save_tensors({}))})


def test_as_many_scores_as_columns_are_refused_since_they_would_tell_the_columns(federation, breast_cancer):
    training, _ = federation(breast_cancer, train_epochs=1)
    own = msgspec.structs.replace(training.data["telco-0"], columns=("c0",))
    narrow = msgspec.structs.replace(training, data=training.data | {"telco-0": own})
    with pytest.raises(ImpossibleJob, match="gives 1 scores of a row, and telco-0 brings 1 numbers"):
        plan(prediction(narrow), NEW)


def test_a_prediction_tells_nothing_before_it_is_known_how_the_model_was_trained():
    spec = read_spec_as(PredictionSpec, PREDICTION.format(features=["telco-0"], brought='telco-0 = {dataset = "new"}'))
    assert kind_of(spec).routes(spec) == ()
    with pytest.raises(ImpossibleJob, match="known to the servers"):
        kind_of(spec).resolve(spec)
