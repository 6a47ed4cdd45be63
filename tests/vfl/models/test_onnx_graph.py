"""The ONNX graph of a half gives what the half gives, for each kind of preparation and of model."""

import numpy as np
import onnx
import onnxruntime
import pytest

from vfl.errors import ModelUnfit
from vfl.kinds import read_spec_as
from vfl.models.halves import OF_OWN_COLUMNS, OF_TOP, PREPARATION, FeatureHalf, LabelHalf
from vfl.models.onnx_graph import HALF_FILE, OWN_COLUMNS_FILE, graphs
from vfl.models.preparation import Preparation
from vfl.models.scorer import Shape
from vfl.models.tabular import build
from vfl.models.tensors import save_tensors
from vfl.planning.training import resolve
from vfl.spec.training import TrainingSpec

ROWS = 500
WORDS = ("red", "green", "blue", "rare")
NUMBERS, COLOURS = ("a", "b", "c", "d", "e"), ("f", "g")
SPEC = """
[job]
name = "onnx"
task = "{task}"
[roster]
label = "bank"
features = ["telco"]
[data.bank]
dataset = "l"
label = "y"
columns = ["a", "b", "c", "d", "e", "f", "g"]
prepare = [
  {{ columns = ["b"], kind = "standardise", missing = "median" }},
  {{ columns = ["c"], kind = "bins", edges = [-1.0, 0.0, 0.5], missing = "own_bin" }},
  {{ columns = ["d"], kind = "bins", edges = 2 }},
  {{ columns = ["f"], kind = "one_hot", categories = 4 }},
  {evidence}
]
[data.telco]
dataset = "f"
columns = ["a", "f"]
prepare = [{{ columns = ["f"], kind = "one_hot", categories = 2 }}, {{ kind = "{numbers}" }}]
[model]
{model}
[train]
epochs = 1
batch_rows = 100
optimiser = {{ name = "sgd", rate = 0.1 }}
[encryption]
scheme = "none"
{protection}
"""
EVIDENCE = """
  { columns = ["e"], kind = "weight_of_evidence", edges = 3 },
  { columns = ["g"], kind = "weight_of_evidence" },
"""
NO_EVIDENCE = """
  { columns = ["e"], kind = "standardise", missing = "median" },
  { columns = ["g"], kind = "one_hot", categories = 2 },
"""


def specification(*, task="binary", top="linear", numbers="standardise", bottom=""):
    hidden = ", hidden = [3]" if top == "mlp" else ""
    model = f'top = {{ kind = "{top}"{hidden} }}'
    protection = ""
    if bottom:
        model += f'\nlayout = "embeddings"\nbottom = {bottom}'
        protection = '[protection]\ncut_noise = { method = "none" }'
    evidence = EVIDENCE if task == "binary" else NO_EVIDENCE
    text = SPEC.format(task=task, model=model, numbers=numbers, protection=protection, evidence=evidence)
    return resolve(read_spec_as(TrainingSpec, text))


def columns(names, seed=1):
    """Rows of these columns: numbers, some of them missing or far away, and codes of words, some of them missing."""
    draws = np.random.default_rng(seed)
    values = draws.normal(size=(ROWS, len(names)))
    for at, name in enumerate(names):
        if name in {"b", "c", "e"}:
            values[draws.random(ROWS) < 0.1, at] = np.nan
        if name in COLOURS:
            codes = draws.choice([0, 1, 2, 3, np.nan], ROWS, p=[0.4, 0.3, 0.19, 0.01, 0.1])
            values[:, at] = codes
    values[0, 0] = 1e6
    return values, {at: WORDS for at, name in enumerate(names) if name in COLOURS}


def prepared_by(spec, party):
    own = spec.data[party]
    values, words = columns(own.columns)
    labels = (np.nan_to_num(values[:, 0]) > 0).astype(float)
    return Preparation.fit(own.columns, own.steps, values, np.arange(ROWS), words, labels)


def label_state(spec):
    draws, own = np.random.default_rng(2), spec.data["bank"].prepared_width
    shape = Shape(spec.embedding_width("telco"), own, spec.hidden, spec.outputs)
    tensors = {OF_TOP + name: draws.normal(size=of) for name, of in shape.matrices.items()}
    tensors |= {OF_OWN_COLUMNS + name: draws.normal(size=of) for name, of in shape.without_embedding.matrices.items()}
    preparation = np.frombuffer(prepared_by(spec, "bank").encode(), np.uint8)
    unit = {"labels.mean": np.array([3.0]), "labels.deviation": np.array([2.0])}
    return save_tensors({**tensors, PREPARATION: preparation, **unit})


def run(graph, values, words, names, **more):
    """What the graph gives for these rows, fed as they stand in a table."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    fed = dict(more)
    for at, name in enumerate(names):
        column = values[:, at]
        if at in words:
            column = np.array(["" if np.isnan(code) else words[at][int(code)] for code in column], dtype=object)
        fed[name] = column[:, None]
    due = {each.name for each in session.get_inputs()}
    (output,) = session.run(None, {name: value for name, value in fed.items() if name in due})
    return output


@pytest.mark.parametrize("top", ["linear", "mlp"])
@pytest.mark.parametrize("task", ["binary", "regression"])
def test_the_label_partys_graphs_score_as_its_half_does(task, top):
    spec = specification(task=task, top=top)
    state, names = label_state(spec), spec.data["bank"].columns
    half, files = LabelHalf.read(spec, state), graphs(spec, "bank", state)
    values, words = columns(names, seed=7)
    embedding = np.random.default_rng(3).normal(size=(ROWS, spec.embedding_width("telco")))
    joint = half.in_units(half.scorer.scores(embedding, half.own(values, words)))
    assert np.abs(run(files[HALF_FILE], values, words, names, embedding=embedding) - joint).max() < 1e-5
    alone = half.in_units(half.own_columns_scores(values, words))
    assert np.abs(run(files[OWN_COLUMNS_FILE], values, words, names) - alone).max() < 1e-5
    facts = {each.key: each.value for each in onnx.load_from_string(files[HALF_FILE]).metadata_props}
    assert facts["begins_with"] == "the columns of the party's table"
    assert facts["specification"] == spec.digest().hex()


@pytest.mark.parametrize("activation", ["", "tanh", "relu"])
def test_a_feature_partys_graph_gives_the_embedding(activation):
    bottom = f'{{ kind = "mlp", hidden = [5], out = 2, activation = "{activation}" }}' if activation else ""
    spec = specification(bottom=bottom)
    tensors = {PREPARATION: np.frombuffer(prepared_by(spec, "telco").encode(), np.uint8)}
    if activation:
        module = build(spec.model.bottom, spec.data["telco"].prepared_width, bytes(32), None)
        tensors |= {f"bottom.{name}": tensor.numpy() for name, tensor in module.state_dict().items()}
    state, (values, words) = save_tensors(tensors), columns(("a", "f"), seed=7)
    embedding = FeatureHalf.read(spec, "telco", state).embed(values, words)
    assert np.abs(run(graphs(spec, "telco", state)[HALF_FILE], values, words, ("a", "f")) - embedding).max() < 1e-5


def test_a_graph_of_quantiles_begins_with_the_prepared_columns_and_says_so():
    spec = specification(numbers="quantile")
    preparation = prepared_by(spec, "telco")
    state = save_tensors({PREPARATION: np.frombuffer(preparation.encode(), np.uint8)})
    values, words = columns(("a", "f"), seed=7)
    graph = graphs(spec, "telco", state)[HALF_FILE]
    expected = FeatureHalf.read(spec, "telco", state).embed(values, words)
    assert np.abs(run(graph, values, words, (), prepared=preparation.apply(values, words)) - expected).max() < 1e-5
    facts = {each.key: each.value for each in onnx.load_from_string(graph).metadata_props}
    assert facts["begins_with"].startswith("the prepared columns")


def test_a_private_bottom_model_is_refused_by_name():
    spec = specification(bottom='{ kind = "private", out = 2 }')
    with pytest.raises(ModelUnfit, match="the bottom model of telco is its own torch module"):
        graphs(spec, "telco", b"")
