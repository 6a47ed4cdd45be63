"""New rows scored jointly by two halves: equal to what the halves make of them in clear, and told to one party."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from vfl.errors import ImpossibleJob, ModelUnfit, RemoteProtocolError, RowsDiffer, SpecError
from vfl.flow import receive, run_together, send
from vfl.kinds import flow_of, kind_of, read_spec_as
from vfl.message import Grain
from vfl.messages import EvaluationRows, RowsToScore
from vfl.models.tensors import load_tensors, save_tensors
from vfl.planning.prediction import largest_messages, plan
from vfl.protocols.halves_together import score_together
from vfl.protocols.new_rows import OPENED
from vfl.protocols.same_rows import compare_rows
from vfl.reports import Answered, StepDone
from vfl.requests import ScoreRequest
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
    ("breast_cancer", {"model": 'top = {kind = "mlp", hidden = [4]}', **ONE_STEP}, 1e-3),
    ("breast_cancer", {**BOTTOM, **ONE_STEP}, 1e-3),
    ("diabetes", {}, 1e-3),
    ("digits", {"encryption_values_per_key": 4096, "train_batch_rows": 1024, "train_epochs": 1}, 1e-3),
    ("digits", {"model": 'top = {kind = "mlp", hidden = [4]}', "train_batch_rows": 1437, "train_epochs": 1}, 1e-3),
    ("diabetes", {"model": 'top = {kind = "mlp", hidden = [4]}', "train_batch_rows": 353, "train_epochs": 1}, 1e-3),
]
"""The last number is eight deviations of the noise that the feature party adds to a score."""


@pytest.mark.parametrize(
    ("table", "options", "largest_error"),
    MODELS,
    ids=[
        "linear",
        "hidden neurons",
        "bottom model",
        "regression",
        "ten classes",
        "ten classes and hidden neurons",
        "regression and hidden neurons",
    ],
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
    assert len(sent) == revealing["EncryptedScores"].messages
    assert sum(len(line.message.coefficients) // 7 for line in sent) == revealing["EncryptedScores"].values == NEW
    largest = largest_messages(given["bank"].spec, NEW)
    for kind, forecast in expected.payload_bytes.items():
        sizes = [line.payload_bytes for line in result.transcript if line.kind == kind]
        assert sum(sizes) == pytest.approx(forecast, rel=0.05)
        assert max(sizes) <= largest[kind] * 1.05
    for facts in result.reports.values():
        assert [fact.step for fact in facts if isinstance(fact, StepDone)] == [expected.steps] == [NEW]


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


def session(trained, joined):
    """The same setups for a prediction that stays open."""
    training, together = trained
    given = setups(training, together, joined)
    spec = spec_with_session(given["bank"].spec)
    return {party: replace(setup, spec=spec) for party, setup in given.items()}


def spec_with_session(spec):
    document = msgspec.to_builtins(spec) | {"session": {"minutes": 5}}
    return msgspec.convert(document, PredictionSpec)


def asking(*rows_of_requests, **more):
    return [
        ScoreRequest(number, np.array(rows, np.int64).tobytes(), **more)
        for number, rows in enumerate(rows_of_requests, 1)
    ]


def answered(given, requests):
    """The answers, and what it took."""
    roles = {party: flow_of(setup) for party, setup in given.items()}
    result = run_together(roles, requests={"bank": requests})
    return [fact for fact in result.reports["bank"] if isinstance(fact, Answered)], result


@pytest.mark.parametrize(
    ("options", "largest_error"),
    [
        ({"train_epochs": 1}, 1e-3),
        ({"encryption_scheme": "none"}, 1e-4),
        ({"model": 'top = {kind = "mlp", hidden = [4]}', **ONE_STEP}, 1e-3),
    ],
    ids=["linear", "in clear", "hidden neurons"],
)
def test_a_session_scores_what_is_asked_for_as_the_halves_do_and_opens_no_row_twice(
    federation, breast_cancer, options, largest_error
):
    given = session(federation(breast_cancer, **options), breast_cancer)
    expected = in_clear(given)
    answers, result = answered(given, asking([7], [7, 3, 7, 399], [], [3, 7]))
    for answer, rows in zip(answers, ([7], [7, 3, 7, 399], [], [3, 7]), strict=True):
        assert np.abs(np.reshape(answer.scores, (-1, 1)) - expected[rows]).max(initial=0) < largest_error
    assert answers[1].scores[0] == answers[0].scores[0] == answers[1].scores[2] == answers[3].scores[1]
    assert [(answer.opened, answer.opened_before) for answer in answers] == [(1, 0), (2, 1), (0, 3), (0, 3)]
    asked = [np.frombuffer(line.message.rows, np.int64) for line in result.transcript if line.kind == "RowsToScore"]
    assert [rows.tolist() for rows in asked] == [[7], [3, 399]]
    assert [outcome.metrics for outcome in result.results.values()] == [{OPENED: 3.0}] * 2
    scores = load_tensors(result.results["bank"].state)["scores"][:, 0]
    assert np.flatnonzero(~np.isnan(scores)).tolist() == [3, 7, 399]
    assert [fact.step for fact in result.reports["telco-0"] if isinstance(fact, StepDone)] == [1, 3]


def test_own_values_take_the_place_of_the_tables_and_the_peers_part_is_taken_again(federation, breast_cancer):
    given = session(federation(breast_cancer, train_epochs=1), breast_cancer)
    own = given["bank"].table.columns[[5, 6]] + 1.0
    changed = given["bank"].table.columns.copy()
    changed[[5, 6]] = own
    tables = {"rows": replace(given["bank"].table, columns=changed)}
    (_, with_own), result = answered(
        given, [*asking([5, 6]), ScoreRequest(2, np.array([5, 6]).tobytes(), own.tobytes())]
    )
    expected = in_clear(given | {"bank": replace(given["bank"], tables=tables)})
    assert np.abs(np.array(with_own.scores) - expected[[5, 6]]).max() < 1e-3
    assert sum(line.kind == "RowsToScore" for line in result.transcript) == 1


def test_a_session_asks_no_more_than_its_plan_and_messages_stay_within_their_limits(federation, breast_cancer):
    given = session(federation(breast_cancer, **ONE_STEP, model='top = {kind = "mlp", hidden = [4]}'), breast_cancer)
    spec = given["bank"].spec
    lines = {line.message: (line.values, line.messages) for line in plan(spec, NEW).reveals if line.values}
    assert lines == {"RowsDigest": (2, 1), "RowsToScore": (NEW, NEW), "EncryptedScores": (NEW, NEW)}
    _, result = answered(given, asking([1], list(range(300))))
    limits = kind_of(spec).message_limits(spec, NEW)
    assert all(line.payload_bytes <= limits[line.kind] for line in result.transcript)
    shown = kind_of(spec).revealed(
        spec, "bank", [msgspec.to_builtins(line) for line in plan(spec, NEW).reveals], {OPENED: 300.0}
    )
    assert {line["message"]: line["values"] for line in shown if line["values"]} == {
        "RowsDigest": 2,
        "RowsToScore": 300,
        "EncryptedScores": 300,
    }


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([[4], [4]], "for a row a second time"),
        ([[4, 4]], "for a row a second time"),
        ([[NEW]], "none of the 400 of the session"),
        ([[-1]], "none of the 400 of the session"),
        ([[]], "for no rows, too many, or out of turn"),
    ],
)
def test_a_label_party_that_asks_for_what_it_may_not_have_is_refused(federation, breast_cancer, rows, said):
    given = session(federation(breast_cancer, encryption_scheme="none"), breast_cancer)

    def deviating(setup):
        yield from compare_rows(setup)
        for number, asked in enumerate(rows, 1):
            yield from send("telco-0", RowsToScore(number, np.array(asked, np.int64).tobytes()))
            yield from receive(EvaluationRows, "telco-0")

    with pytest.raises(RemoteProtocolError, match=said):
        run_together({"bank": deviating(given["bank"]), "telco-0": flow_of(given["telco-0"])})


def test_a_session_is_no_longer_than_its_job():
    text = PREDICTION.format(features=["telco-0"], brought='telco-0 = {dataset = "new"}')
    with pytest.raises(SpecError, match=r"session.minutes is longer than job.deadline_seconds"):
        read_spec_as(PredictionSpec, text.replace("[data]", "session = { minutes = 2000 }\n[data]"))
    with pytest.raises(SpecError, match=r"session.minutes must be a finite number above 0"):
        read_spec_as(PredictionSpec, text.replace("[data]", "session = { minutes = 0 }\n[data]"))
    assert read_spec_as(PredictionSpec, text.replace("[data]", "session = {}\n[data]")).session_seconds == 3600
