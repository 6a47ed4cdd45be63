"""Part shared-data (EP4113394A3): each round's mean is adjusted on rows the aggregator holds and all agreed to.

Rules: `feddu` moves the mean towards a copy trained on the shared rows, by a step that follows from class mixes
(`feddu` beside this file); `fixed` moves it by a fixed share; `hybrid` enters the mean as one more client; `share`
hands the rows to the clients once. What the aggregator knows of class mixes is pooled: no client shows its own counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from vfl.errors import Diverged, InvalidData, LocalProtocolError
from vfl.horizontal.hooks import AggregatorHooks, ClientHooks, Examples, Finished, Part, SharedModule, SumQuery
from vfl.horizontal.mean import WeightedMean
from vfl.horizontal.rows import derived, examples_of
from vfl.horizontal.shared_data import feddu
from vfl.message import Message
from vfl.messages import RoundTask, SharedRows
from vfl.models.local_training import Evaluation, evaluate, train
from vfl.models.networks import Parameters, load_parameters, parameters_of
from vfl.notices import Notice
from vfl.schedule import held_out
from vfl.setup import Setup
from vfl.spec.rounds import RoundsSpec
from vfl.spec.rounds_settings import SharedData
from vfl.spec.sections import Optimiser

BINS = 10
"""Quantile bins of the label of a regression (R4.7)."""
MOST_SHARED_ROWS = 100_000
"""That a client takes in: it trains on them in every round."""
FRACTION = 1 << 20
"""Divergences are summed as integers, in units of 2^-20."""


COUNTS_OF_ALL, COUNTS_OF_COHORT, DIVERGENCES = "class counts of all", "class counts", "divergences"
"""What is pooled."""


@dataclass
class _Memory:
    """What the rounds so far have shown."""

    accuracies: list[float] = field(default_factory=list)
    """Of the copies trained on shared rows, on held-out ones."""
    population_counts: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """Class counts of all clients, or the running sum of their estimates."""
    mean_velocity: Parameters = field(default_factory=dict)
    step_velocity: Parameters = field(default_factory=dict)


class Adjuster(AggregatorHooks):
    """The aggregator's side."""

    def __init__(self, setup: Setup[RoundsSpec], saved: Mapping[str, torch.Tensor]) -> None:
        self._spec, self._terms = setup.spec, terms_of(setup.spec)
        self._seed = derived(setup.joint_seed, "shared rows")
        rows = examples_of(self._spec, setup.tables["shared"], "shared", setup.scaling)
        if rows.labels is None:
            raise InvalidData("the shared rows have no labels")
        self._regression = self._spec.job.task == "regression"
        self._edges = _bin_edges(rows.labels) if self._regression else ()
        train_rows, test_rows = held_out(self._seed, rows.rows, self._terms.hold_out)
        self._inputs, self._labels = rows.inputs, rows.labels
        self._train, self._test = torch.from_numpy(train_rows), torch.from_numpy(test_rows)
        self._mix = class_counts(rows.labels[self._train], self._spec.outputs, self._edges)
        self._largest_share = float(
            class_counts(rows.labels[self._test], self._spec.outputs, self._edges).max() / len(self._test)
        )
        self._memory = _restored(saved)
        self._cohort_rows = 0
        self._cohort: NDArray[np.float64] = np.zeros(0)
        self._measures: dict[str, float] = {}
        self._embedded: tuple[SharedModule, torch.Tensor] | None = None

    # Pooled class mixes

    def query(self, round_number: int) -> SumQuery | None:
        """Round 0 asks all clients for their class counts, every other one the cohort, where the rule wants that."""
        if self._terms.rule != "feddu" or self._terms.counts == "estimate":
            return None
        if round_number == 0:
            return SumQuery(COUNTS_OF_ALL, self._classes, self._edges)
        if self._terms.divergence == "cohort":
            return SumQuery(COUNTS_OF_COHORT, self._classes, self._edges)
        return SumQuery(DIVERGENCES, 1, (*self._edges, *map(float, self._memory.population_counts)))

    def on_sum(self, round_number: int, sums: NDArray[np.uint64]) -> None:
        if round_number == 0:
            self._memory.population_counts = sums.astype(np.float64)
        else:
            self._cohort = sums.astype(np.float64)

    # The mean

    def enter(self, round_number: int, shared: SharedModule, before: Parameters, mean: WeightedMean) -> None:
        self._cohort_rows = mean.rows
        if self._terms.rule == "hybrid":
            mean.add(self._trained_from(before, shared, round_number), len(self._train))

    def adjust(self, round_number: int, shared: SharedModule, before: Parameters, mean: Parameters) -> Parameters:
        rule = self._terms.rule
        self._measures = {}
        if rule in {"none", "hybrid", "share"}:
            return mean
        mean = self._with_momentum(self._memory.mean_velocity, before, mean)
        held_out = self._measured(mean, shared)
        step = self._terms.step if rule == "fixed" else self._step(round_number, mean, shared, held_out)
        self._measures |= {"shared_accuracy": self._score(held_out), "shared_step": step}
        self._measures["shared_effective_steps"] = feddu.effective_steps(
            step, self._terms.epochs, len(self._train), self._terms.batch_rows
        )
        if step <= feddu.SMALLEST_STEP:
            return mean
        try:
            copy = self._trained_from(mean, shared, round_number)
        except Diverged:  # a mean that cannot be trained on is not adjusted
            return mean
        moved = {
            name: (1 - step) * values + step * copy[name] if values.is_floating_point() else copy[name]
            for name, values in mean.items()
        }
        moved = self._with_momentum(self._memory.step_velocity, mean, moved)
        after = self._measured(moved, shared)
        self._memory.accuracies.append(self._score(self._measured(copy, shared)))
        undone = self._terms.undo and self._harms(held_out, after)
        self._measures |= {
            "shared_loss_before": held_out.loss,
            "shared_loss_after": after.loss,
            "shared_undone": float(undone),
        }
        return mean if undone else moved

    def finish(self, shared: SharedModule, parameters: Parameters) -> Finished:
        mix = ", ".join(f"{share:.2f}" for share in self._mix / self._mix.sum())
        used = f"{len(self._train)} shared rows were trained on and {len(self._test)} held out; class mix {mix}"
        notices = [Notice("note", "shared_rows", used)]
        if self._terms.counts == "estimate":
            notices.append(Notice("note", "class_mix_estimated", "class mixes of clients are estimates"))
        return Finished(parameters, notices=tuple(notices))

    def handed_out(self) -> tuple[Message, ...]:
        """Rule `share`: what may be trained on, once to each client."""
        if self._terms.rule != "share":
            return ()
        return (rows_message(Examples(self._inputs[self._train], self._labels[self._train])),)

    def measures(self) -> dict[str, float]:
        return self._measures

    def saved(self) -> Parameters:
        memory = self._memory
        return {
            "accuracies": torch.tensor(memory.accuracies, dtype=torch.float64),
            "population_counts": torch.from_numpy(memory.population_counts.copy()),
            **{f"mean/{name}": values for name, values in memory.mean_velocity.items()},
            **{f"step/{name}": values for name, values in memory.step_velocity.items()},
        }

    # Small things

    @property
    def _classes(self) -> int:
        return BINS if self._regression else self._spec.outputs

    def _step(self, round_number: int, mean: Parameters, shared: SharedModule, held_out: Evaluation) -> float:
        """a of the rule `feddu`."""
        if self._terms.counts == "estimate":
            self._cohort = self._estimated(mean, shared)
            population_counts = (
                self._memory.population_counts if len(self._memory.population_counts) else np.zeros(self._classes)
            )
            self._memory.population_counts = population_counts + self._cohort
        population_counts = self._memory.population_counts
        cohort_divergence = (
            feddu.divergence(self._cohort, population_counts)
            if self._terms.divergence == "cohort"
            else float(self._cohort[0]) / FRACTION / self._cohort_rows
        )
        own = feddu.divergence(self._mix, population_counts)
        share = feddu.share_of_shared(len(self._train), self._cohort_rows, cohort_divergence, own)
        self._measures = {"cohort_divergence": cohort_divergence, "shared_divergence": own, "shared_omega": share}
        return feddu.step_size(self._terms.scale, self._score(held_out), share, self._terms.decay, round_number)

    def _harms(self, held_out: Evaluation, after: Evaluation) -> bool:
        if not after.loss <= feddu.LARGEST_RISE * held_out.loss:  # also where it is no number
            return True
        return not self._regression and feddu.labels_look_wrong(
            self._memory.accuracies, self._largest_share, len(self._test)
        )

    def _score(self, held_out: Evaluation) -> float:
        """Accuracy; of a regression 1 - min(1, loss / loss of the mean predictor) (R4.7)."""
        if not self._regression:
            return held_out.correct / held_out.rows
        spread = float(self._labels[self._test].double().var(unbiased=False))
        return 1 - min(1.0, held_out.loss / spread) if spread else 0.0

    def _trained_from(self, start: Parameters, shared: SharedModule, round_number: int) -> Parameters:
        """A copy trained on the shared rows at the round's rate."""
        load_parameters(shared.module, start)
        train(
            shared.module,
            self._embed(shared)[self._train],
            self._labels[self._train],
            epochs=self._terms.epochs,
            batch_rows=self._terms.batch_rows,
            optimiser=Optimiser(name="sgd", rate=self._spec.rate_of(round_number)),
            seed=derived(self._seed, round_number),
            regression=self._regression,
        )
        return parameters_of(shared.module)

    def _measured(self, parameters: Parameters, shared: SharedModule) -> Evaluation:
        load_parameters(shared.module, parameters)
        inputs, labels = self._embed(shared)[self._test], self._labels[self._test]
        return evaluate(shared.module, inputs, labels, regression=self._regression)

    def _estimated(self, parameters: Parameters, shared: SharedModule) -> NDArray[np.float64]:
        """Mean softmax of the mean model on shared rows, for the class mix of the cohort (R4.4)."""
        load_parameters(shared.module, parameters)
        shared.module.eval()
        with torch.no_grad():
            scores = shared.module(self._embed(shared))
        shares: NDArray[np.float64] = scores.softmax(1).mean(0).double().numpy()
        return shares

    def _embed(self, shared: SharedModule) -> torch.Tensor:
        if self._embedded is None or self._embedded[0] is not shared:
            self._embedded = (shared, shared.embed(self._inputs))
        return self._embedded[1]

    def _with_momentum(self, velocity: Parameters, old: Parameters, new: Parameters) -> Parameters:
        """FedDUM: m <- b m + (1 - b)(new - old), w <- old + m; the neutral b = 0 returns `new` itself."""
        keep = self._terms.momentum
        if not keep:
            return new
        moved = dict(new)
        for name, values in new.items():
            if values.is_floating_point():
                velocity[name] = keep * velocity.get(name, torch.zeros_like(values)) + (1 - keep) * (values - old[name])
                moved[name] = old[name] + velocity[name]
        return moved


class Sharer(ClientHooks):
    """A client's side: it answers pooled questions, and takes shared rows in where the rule hands them out."""

    def __init__(self, setup: Setup[RoundsSpec]) -> None:
        self._spec = setup.spec
        self._shared: Examples | None = None

    def _agreed(self, round_number: int) -> set[str]:
        """What the rule asks: the mix of all before round 1, then the cohort's."""
        terms = terms_of(self._spec)
        if terms.rule != "feddu" or terms.counts != "pooled":
            return set()
        return {COUNTS_OF_ALL} if not round_number else {_asked_each_round(terms)}

    def contribution(
        self, round_number: int, purpose: str, numbers: tuple[float, ...], rows: Examples
    ) -> NDArray[np.uint64] | None:
        """This client's part of a pooled sum; it leaves under masks only."""
        labels = rows.labels
        if labels is None or purpose not in self._agreed(round_number):
            return None
        regression = self._spec.job.task == "regression"
        edges = numbers[: BINS - 1] if regression else ()
        if regression and (len(edges) != BINS - 1 or not np.isfinite(edges).all()):
            raise InvalidData(f"the bins of the label need {BINS - 1} finite edges")
        counts = class_counts(labels, self._spec.outputs, edges)
        if purpose != DIVERGENCES:
            return counts.astype(np.uint64)
        population_counts = np.array(numbers[len(edges) :])
        if len(population_counts) != len(counts) or not (
            np.isfinite(population_counts).all() and (population_counts >= 0).all()
        ):
            raise InvalidData("the class mix of all clients does not fit this job's classes")
        lean = feddu.divergence(counts, population_counts) * len(labels)
        return np.array([round(lean * FRACTION)], np.uint64)

    def take(self, message: Message) -> bool:
        """Raises InvalidData where the rows do not fit the model."""
        if not isinstance(message, SharedRows) or terms_of(self._spec).rule != "share" or self._shared is not None:
            return False
        self._shared = examples_from(self._spec, message)
        return True

    def prepare(self, task: RoundTask, rows: Examples) -> Examples:
        shared = self._shared
        if shared is None or shared.labels is None or rows.labels is None:
            return rows
        return Examples(torch.cat([rows.inputs, shared.inputs]), torch.cat([rows.labels, shared.labels]))


def _asked_each_round(terms: SharedData) -> str:
    return COUNTS_OF_COHORT if terms.divergence == "cohort" else DIVERGENCES


def terms_of(spec: RoundsSpec) -> SharedData:
    terms = spec.shared_data
    if terms is None:
        raise LocalProtocolError("the part shared_data is not in this job")
    return terms


def class_counts(labels: torch.Tensor, classes: int, edges: tuple[float, ...]) -> NDArray[np.float64]:
    """Rows per class, or per bin between the edges."""
    if edges:
        bins = np.searchsorted(np.array(edges), labels.numpy())
        return np.bincount(bins, minlength=len(edges) + 1).astype(np.float64)
    return np.bincount(labels.numpy(), minlength=classes).astype(np.float64)


def rows_message(rows: Examples) -> SharedRows:
    """The shared rows as they travel: float32 inputs, scaled, float32 labels."""
    if rows.labels is None:
        raise InvalidData("the shared rows have no labels")
    return SharedRows(
        rows=rows.rows,
        inputs=rows.inputs.numpy().astype("<f4").tobytes(),
        labels=rows.labels.numpy().astype("<f4").tobytes(),
    )


def examples_from(spec: RoundsSpec, message: SharedRows) -> Examples:
    """Raises InvalidData where the message does not hold rows of this job."""
    inputs, labels = np.frombuffer(message.inputs, np.uint8), np.frombuffer(message.labels, np.uint8)
    if message.rows < 1 or len(inputs) != 4 * message.rows * spec.inputs or len(labels) != 4 * message.rows:
        raise InvalidData("the shared rows do not have the length that their message names")
    values, targets = inputs.view("<f4"), labels.view("<f4")
    regression = spec.job.task == "regression"
    if not (np.isfinite(values).all() and np.isfinite(targets).all()):
        raise InvalidData("the shared rows hold numbers that are not finite")
    low, high = spec.model.input_bounds
    if values.min() < low or values.max() > high or message.rows > MOST_SHARED_ROWS:
        raise InvalidData(
            f"the shared rows lie outside the range of the inputs, or there are more than {MOST_SHARED_ROWS}"
        )
    if not regression and not np.isin(targets, np.arange(spec.outputs)).all():
        raise InvalidData("the shared rows hold labels of no class of this job")
    return Examples(
        torch.from_numpy(values.astype(np.float32)).reshape(-1, *spec.model.input_shape),
        torch.from_numpy(targets.astype(np.float32 if regression else np.int64)),
    )


def _bin_edges(labels: torch.Tensor) -> tuple[float, ...]:
    return tuple(float(edge) for edge in np.quantile(labels.numpy(), np.arange(1, BINS) / BINS))


def _restored(saved: Mapping[str, torch.Tensor]) -> _Memory:
    if not saved:
        return _Memory()
    return _Memory(
        accuracies=saved["accuracies"].tolist(),
        population_counts=saved["population_counts"].numpy().copy(),
        mean_velocity={name[5:]: values for name, values in saved.items() if name.startswith("mean/")},
        step_velocity={name[5:]: values for name, values in saved.items() if name.startswith("step/")},
    )


def _at_aggregator(setup: Setup[RoundsSpec], saved: Mapping[str, torch.Tensor]) -> AggregatorHooks:
    if terms_of(setup.spec).rule == "none":
        return AggregatorHooks()
    return Adjuster(setup, saved)


def _at_client(setup: Setup[RoundsSpec]) -> ClientHooks:
    return Sharer(setup)


PART = Part("shared_data", _at_aggregator, _at_client)
