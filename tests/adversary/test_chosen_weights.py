"""What a label party reads of a feature party's columns out of scores: by weights that it chooses, and by many scores.

Neither is prevented (docs/prediction.md): what bounds them is how often rows are scored, once in a session too, and
that a model which gives as many scores of a row as there are columns is refused.
"""

from dataclasses import replace
from hashlib import sha256

import msgspec
import numpy as np
import pytest

from crypto.encrypted_quadratics import EncryptedQuadratics, QuadraticKey
from vfl.errors import ImpossibleJob, RemoteProtocolError
from vfl.flow import run_together, send
from vfl.kinds import flow_of, kind_of, read_spec_as
from vfl.messages import RowsToScore, SessionOver
from vfl.models.halves import LabelHalf
from vfl.models.preparation import Preparation
from vfl.models.scaling import Scaling
from vfl.models.tensors import load_tensors, save_tensors
from vfl.planning.prediction import plan
from vfl.planning.training import resolve
from vfl.protocols import scoring_session
from vfl.protocols.ckks_scoring import scores_rows
from vfl.protocols.same_rows import compare_rows
from vfl.setup import Setup, Table
from vfl.spec.prediction import PredictionSpec, Session
from vfl.spec.training import TrainingSpec

ROWS, WIDTH = 150, 3
TRAINING = """
job = {{ name = "t", task = "{task}", classes = {classes} }}
roster = {{ label = "bank", features = ["telco"] }}
train = {{ epochs = 1, batch_rows = 64 }}
encryption = {{ scheme = "ckks" }}
[data]
bank = {{ dataset = "d", label = "y" }}
telco = {{ dataset = "d", columns = ["a", "b", "c"] }}
"""
PREDICTION = """
job = { name = "p", protocol = "prediction" }
roster = { label = "bank", features = ["telco"] }
model = { training = "0" }
scores = { decimals = 6 }
data = { bank = { dataset = "d" }, telco = { dataset = "d" } }
"""


def prediction(task="binary", classes=0):
    training = resolve(read_spec_as(TrainingSpec, TRAINING.format(task=task, classes=classes)))
    spec = read_spec_as(PredictionSpec, PREDICTION)
    return kind_of(spec).applying(spec, training)


def setups(spec, columns, weights):
    """Of a label party that puts these weights in the place of the model's, and an honest feature party."""
    steps = spec.trained.data["telco"].steps
    fitted = Preparation.fit(("a", "b", "c"), steps, columns, np.arange(len(columns)), {})
    fitted = replace(fitted, scaling=Scaling(np.zeros(WIDTH), np.ones(WIDTH)))
    nothing = Preparation.fit((), (), columns, np.arange(len(columns)), {})
    top = np.column_stack([weights, np.zeros(len(weights))])
    unit = {"labels.mean": np.zeros(1), "labels.deviation": np.ones(1)}
    halves = {
        "bank": {"top.weights": top, "preparation": np.frombuffer(nothing.encode(), np.uint8)} | unit,
        "telco": {"preparation": np.frombuffer(fitted.encode(), np.uint8)},
    }
    tables = {"bank": Table(bytes(32), np.empty((len(columns), 0))), "telco": Table(bytes(32), columns)}
    seed = sha256(b"joint").digest()
    return {
        party: Setup(spec, party, {"rows": tables[party]}, seed, seed, model=save_tensors(halves[party]))
        for party in spec.parties
    }


def scores(spec, columns, weights):
    """What that label party reads."""
    roles = {party: flow_of(setup) for party, setup in setups(spec, columns, weights).items()}
    return load_tensors(run_together(roles).results["bank"].state)["scores"]


@pytest.fixture
def columns():
    return np.clip(np.random.default_rng(4).normal(size=(ROWS, WIDTH)), -3, 3)


def test_weights_that_are_not_the_models_read_one_column_of_each_row(columns):
    read = scores(prediction(), columns, np.eye(WIDTH)[1:2])
    assert np.abs(read[:, 0] - columns[:, 1]).max() < 1e-3


def test_columns_of_zeros_and_ones_are_all_read_of_one_score_of_each_row():
    bits = np.random.default_rng(7).integers(0, 2, (ROWS, WIDTH)).astype(float)
    read = scores(prediction(), bits, np.array([[1.0, 2.0, 4.0]]) / 100)
    found = np.rint(100 * read[:, 0]).astype(int)[:, None] >> np.arange(WIDTH) & 1
    assert (found == bits).all()


def test_slopes_that_are_not_the_models_read_another_column_of_each_row(columns):
    """Of a model with hidden neurons: what each coordinate is multiplied with is sent for each row."""
    key, turns = QuadraticKey(WIDTH), np.arange(ROWS) % WIDTH
    quadratics = EncryptedQuadratics(key.encrypt(np.zeros((1, 6))), WIDTH, 1)
    chosen = key.encrypt_slopes(np.eye(WIDTH)[turns][:, None])
    read = key.read(quadratics.scores(columns, chosen), ROWS, 1)[:, 0]
    assert np.abs(read - columns[np.arange(ROWS), turns]).max() < 1e-3


def asked_again(setup, times):
    """A label party that asks in a session for the score of one row so many times; answers what it has read."""
    yield from compare_rows(setup)
    scorer = LabelHalf.read(setup.spec.trained, setup.model).scorer
    score = yield from scores_rows(setup.spec.trained, scorer, "telco")
    read = []
    for number in range(1, times + 1):
        yield from send("telco", RowsToScore(number, np.zeros(1, np.int64).tobytes()))
        scored = yield from score(number, np.empty((1, 0)))
        read.append(scored.scores[0, 0])
    yield from send("telco", SessionOver())
    return read


@pytest.mark.parametrize("is_guarded", [False, True])
def test_a_row_that_is_scored_again_and_again_in_a_session_would_lose_its_noise_and_is_refused(
    columns, is_guarded, monkeypatch
):
    spec = msgspec.structs.replace(prediction(), session=Session())
    both = setups(spec, columns, np.eye(WIDTH)[1:2])
    roles = {"bank": asked_again(both["bank"], 100), "telco": flow_of(both["telco"])}
    if is_guarded:
        with pytest.raises(RemoteProtocolError, match="bank asks for a row a second time"):
            run_together(roles)
        return
    monkeypatch.setattr(scoring_session, "_checked", lambda *_: np.zeros(1, np.int64))
    read = np.array(run_together(roles).results["bank"])
    assert abs(read.mean() - columns[0, 1]) < read.std() / 2


def test_as_many_predictions_as_columns_tell_all_columns(columns):
    models = np.random.default_rng(5).normal(size=(WIDTH, WIDTH))
    read = np.column_stack([scores(prediction(), columns, model[None]) for model in models])
    found = np.linalg.solve(models, read.T).T
    assert np.abs(found - columns).max() < 0.02


def test_one_prediction_of_a_model_with_as_many_scores_would_do_the_same_and_is_refused(columns):
    spec, models = prediction("multiclass", WIDTH), np.random.default_rng(6).normal(size=(WIDTH, WIDTH))
    found = np.linalg.solve(models, scores(spec, columns, models).T).T
    assert np.abs(found - columns).max() < 0.02
    with pytest.raises(ImpossibleJob, match="reads these numbers out of the scores"):
        plan(spec, ROWS)
    assert plan(prediction(), ROWS).steps == ROWS
