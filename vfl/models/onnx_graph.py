"""A party's half of a model as ONNX graphs: for programs that run such graphs, without this project.

A graph computes in float64. It takes the party's own columns as they stand in its table, one input each of rows x 1:
numbers, NaN for an empty cell, and words, "" for an empty cell. ONNX has no inverse of the normal distribution, so the
graph of a half with a column prepared by `quantile` begins later: with the input `prepared`, all columns as this
project prepares them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from vfl.errors import ModelUnfit
from vfl.models.halves import OF_BOTTOM, FeatureHalf, LabelHalf
from vfl.models.preparation import AnyColumn, Categories, Edges, Evidence, Filled, Preparation, Quantiles
from vfl.models.scorer import SQUARE_ACTIVATION, Scorer
from vfl.models.tensors import load_tensors
from vfl.planning.training import INPUT_BOUND
from vfl.spec.sections import PartyId
from vfl.spec.training import TrainingSpec

Floats = NDArray[np.float64]
OPSET, OPSET_ML, IR_VERSION = 17, 3, 8
"""Releases of the format that programs of 2022 and later read."""
ROWS, PREPARED, EMBEDDING = "rows", "prepared", "embedding"
HALF_FILE, OWN_COLUMNS_FILE = "model.onnx", "own_columns.onnx"


def graphs(spec: TrainingSpec, me: PartyId, state: bytes) -> dict[str, bytes]:
    """Files by name: the half, and at the label party the model on its own columns alone. Raises ModelUnfit."""
    if me == spec.roster.label:
        label = LabelHalf.read(spec, state)
        files = {HALF_FILE: _of_label(spec, label, label.scorer, "scores")}
        if label.own_scorer is not None:
            files[OWN_COLUMNS_FILE] = _of_label(spec, label, label.own_scorer, "own_columns_scores")
        return files
    return {HALF_FILE: _of_feature(spec, me, state)}


def _of_label(spec: TrainingSpec, half: LabelHalf, scorer: Scorer, output: str) -> bytes:
    graph = _Graph()
    own = graph.prepared(half.preparation)
    joined = own
    if scorer.shape.embedding:
        graph.take(EMBEDDING, TensorProto.DOUBLE, scorer.shape.embedding)
        joined = graph.add("Concat", EMBEDDING, own, axis=1)
    scores = graph.dense(joined, scorer.joined_weights)
    if scorer.shape.hidden:
        alpha, beta = SQUARE_ACTIVATION
        square = graph.add("Mul", graph.add("Mul", scores, scores), graph.constant(alpha))
        active = graph.add("Add", square, graph.add("Mul", scores, graph.constant(beta)))
        scores = graph.dense(active, scorer.output_weights)
    in_units = graph.add(
        "Add", graph.add("Mul", scores, graph.constant(half.unit.deviation)), graph.constant(half.unit.mean)
    )
    return graph.finished(in_units, output, spec.outputs, spec.roster.label, spec)


def _of_feature(spec: TrainingSpec, me: PartyId, state: bytes) -> bytes:
    bottom = spec.model.bottom
    if bottom is not None and bottom.kind == "private":
        raise ModelUnfit(
            f"the bottom model of {me} is its own torch module, of which this project does not know the layers",
            safe="The half is exported; no ONNX graph was written.",
            fix="Export that module with torch.onnx; the weights stand in model.safetensors.",
        )
    half_preparation = FeatureHalf.read(spec, me, state).preparation
    graph = _Graph()
    embedding = graph.prepared(half_preparation)
    if bottom is not None:
        tensors = load_tensors(state)
        for layer in range(0, 2 * len((*bottom.hidden, bottom.out)), 2):
            weight, bias = tensors[f"{OF_BOTTOM}{layer}.weight"], tensors[f"{OF_BOTTOM}{layer}.bias"]
            dense = graph.dense(embedding, np.column_stack([weight, bias]))
            embedding = graph.add(bottom.activation.capitalize(), dense)
    return graph.finished(embedding, EMBEDDING, spec.embedding_width(me), me, spec)


class _Graph:
    """A graph as it grows: each method adds nodes and answers the name of what they give."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._inputs: list[Any] = []
        self._begins = ""

    def take(self, name: str, kind: int, width: int) -> None:
        """An input of rows x width."""
        self._inputs.append(helper.make_tensor_value_info(name, kind, [ROWS, width]))

    def constant(self, value: Any, kind: Any = np.float64) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"value_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def dense(self, rows: str, weights: Floats) -> str:
        """Neurons of weights whose last column is the bias."""
        product = self.add("MatMul", rows, self.constant(weights[:, :-1].T))
        return self.add("Add", product, self.constant(weights[:, -1]))

    def prepared(self, preparation: Preparation) -> str:
        """The party's own columns as the model takes them."""
        if any(isinstance(column, Quantiles) for column in preparation.columns):
            self._begins = "the prepared columns: one is prepared by quantile, for which ONNX has no operator"
            self.take(PREPARED, TensorProto.DOUBLE, len(preparation.scaling.mean))
            return PREPARED
        self._begins = "the columns of the party's table"
        blocks = [
            self._block(name, column) for name, column in zip(preparation.names, preparation.columns, strict=True)
        ]
        scaling = preparation.scaling
        centred = self.add("Sub", self.add("Concat", *blocks, axis=1), self.constant(scaling.mean))
        scaled = self.add("Div", centred, self.constant(scaling.deviation))
        return self.add("Clip", scaled, self.constant(-INPUT_BOUND), self.constant(INPUT_BOUND))

    def finished(self, value: str, output: str, width: int, party: PartyId, spec: TrainingSpec) -> bytes:
        self._nodes.append(helper.make_node("Identity", [value], [output]))
        outputs = [helper.make_tensor_value_info(output, TensorProto.DOUBLE, [ROWS, width])]
        graph = helper.make_graph(self._nodes, output, self._inputs, outputs, self._constants)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", OPSET_ML)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        facts = {"party": party, "specification": spec.digest().hex(), "begins_with": self._begins}
        helper.set_model_props(model, facts)
        onnx.checker.check_model(model)
        encoded: bytes = model.SerializeToString(deterministic=True)
        return encoded

    def _block(self, name: str, column: AnyColumn) -> str:
        """The numbers that a column becomes before they are scaled, rows x width."""
        match column:
            case Categories():
                places = self._places(name, column.named, -1)
                return self._flags("Equal", places, self.constant(np.arange(column.width)[None], np.int64))
            case Evidence() if not column.edges:
                places = self._places(name, column.named, len(column.named))
                return self.add("Gather", self.constant(column.weights), places)
            case Evidence():
                return self._evidence_of_bins(name, column)
            case Edges():
                numbers = self._numbers(name)
                above = self._flags("GreaterOrEqual", numbers, self.constant([column.edges]))
                return self.add("Concat", above, self._flags("IsNaN", numbers), axis=1) if column.gaps else above
            case Filled():
                numbers = self._numbers(name)
                if column.fill is None:
                    return numbers
                gap = self.add("IsNaN", numbers)
                filled = self.add("Where", gap, self.constant(column.fill), numbers)
                return self.add("Concat", filled, self.add("Cast", gap, to=TensorProto.DOUBLE), axis=1)

    def _numbers(self, name: str) -> str:
        self.take(name, TensorProto.DOUBLE, 1)
        return name

    def _places(self, name: str, named: Sequence[str], others: int) -> str:
        """Of each row the place of its word, rows x 1."""
        self.take(name, TensorProto.STRING, 1)
        words, places = list(named) or [""], list(range(len(named))) or [others]
        return self.add(
            "LabelEncoder",
            name,
            domain="ai.onnx.ml",
            keys_strings=words,
            values_int64s=places,
            default_int64=others,
        )

    def _evidence_of_bins(self, name: str, column: Evidence) -> str:
        numbers, bins = self._numbers(name), len(column.edges) + 1
        place: Mapping[str, int] = {word: at for at, word in enumerate(column.named)}
        weights = [column.weights[place.get(word, -1)] for word in (*map(str, range(bins)), "")]
        above = self._flags("GreaterOrEqual", numbers, self.constant([column.edges]))
        number = self.add("ReduceSum", above, self.constant([1], np.int64), keepdims=1)
        binned = self.add("Where", self.add("IsNaN", numbers), self.constant(bins), number)
        return self.add("Gather", self.constant(weights), self.add("Cast", binned, to=TensorProto.INT64))

    def _flags(self, operator: str, *inputs: str) -> str:
        """1 where it holds and 0 elsewhere."""
        return self.add("Cast", self.add(operator, *inputs), to=TensorProto.DOUBLE)
