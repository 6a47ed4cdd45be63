"""The aggregator's side of model-inversion: the mean trains on rows found in each client's model (R2.3)."""

from copy import deepcopy

import msgspec
import torch
from torch import nn

from vfl.horizontal.evaluation import SCORE, measured
from vfl.horizontal.hooks import AggregatorHooks, Examples, Finished, SharedModule
from vfl.horizontal.mean import WeightedMean
from vfl.horizontal.model_inversion.inversion import Inverted
from vfl.horizontal.model_inversion.search import FEWEST_KEPT, Inverter, every_class, labels_of
from vfl.horizontal.rows import derived, examples_of
from vfl.models.local_training import features, train
from vfl.models.networks import Parameters, load_parameters, parameters_of
from vfl.notices import Notice
from vfl.setup import Setup
from vfl.spec.rounds import RoundsSpec


class Observing(AggregatorHooks):
    """The aggregator's side where clients alone invert: it sends them the statistics to invert by."""

    def __init__(self, inverter: Inverter) -> None:
        self._inverter = inverter

    def observe(self, module: nn.Sequential) -> nn.Sequential:
        return self._inverter.observed(module)


class Retraining(Observing):
    """The aggregator's side where it inverts each client's model."""

    keeps_replies = True

    def __init__(self, setup: Setup[RoundsSpec], inverter: Inverter) -> None:
        super().__init__(inverter)
        self._setup, self._spec, self._terms = setup, setup.spec, inverter.terms
        self._seed = derived(setup.joint_seed, "model-inversion")
        uses = [use for use in ("validation", "test") if use in setup.tables]
        self._judges = [examples_of(setup.spec, setup.tables[use], use, setup.scaling) for use in uses[:1]]
        self._singles: list[tuple[Parameters, int]] = []
        self._measures: dict[str, float] = {}

    def enter(self, round_number: int, shared: SharedModule, before: Parameters, mean: WeightedMean) -> None:
        self._singles = mean.singles

    def adjust(self, round_number: int, shared: SharedModule, before: Parameters, mean: Parameters) -> Parameters:
        """Train the mean on the union of what each client's model holds (R2.3)."""
        singles, self._singles = self._singles, []
        self._measures = {"inverted_rows": 0.0, "inverted_kept": 0.0}
        if round_number < self._terms.warm_up or not self._better_than_guessing(shared, mean):
            return mean
        module = shared.module
        probe = shared.embed(torch.zeros(1, *self._spec.model.input_shape))
        space, search = self._inverter.space(module, probe), self._inverter.at_aggregator()
        part = self._inverter.inverted_part(module)
        labels = every_class(self._terms.server_rows, self._spec.outputs)
        student = self._student(module, mean)
        inverted = []
        for position, (parameters, _) in enumerate(singles):
            load_parameters(module, parameters)
            seed = derived(self._seed, round_number, position)
            inverted.append(self._inverter.find(part, labels, space, search, seed, student))
        rows_kept = sum(float(one.is_confident.sum()) for one in inverted)
        self._measures = {
            "inverted_rows": rows_kept,
            "inverted_kept": rows_kept / max(1, len(labels) * len(inverted)),
        }
        union = self._union(module, part, singles, [one.filtered() for one in inverted])
        load_parameters(module, mean)
        if self._measures["inverted_kept"] < FEWEST_KEPT:
            return mean
        self._train(part, union, round_number)
        return parameters_of(module)

    def measures(self) -> dict[str, float]:
        return self._measures

    def finish(self, shared: SharedModule, parameters: Parameters) -> Finished:
        """What the job cost in privacy (R2.7)."""
        cost = (
            "rows like the clients' were found in each client's model; each client's own report says how near they come"
        )
        return Finished(parameters, notices=(Notice("warning", "rows_found", cost),))

    def _better_than_guessing(self, shared_module: SharedModule, mean: Parameters) -> bool:
        """By rows that are here, where there are any (R2.5)."""
        load_parameters(shared_module.module, mean)
        accuracies = [measured(self._spec, shared_module, rows)[SCORE[self._spec.job.task]] for rows in self._judges]
        return all(accuracy >= 2 / self._spec.outputs for accuracy in accuracies)

    def _student(self, module: nn.Sequential, mean: Parameters) -> nn.Sequential | None:
        """The mean model, for a generator that looks for rows on which it and a client's model disagree."""
        if self._terms.kind != "generator":
            return None
        copy = deepcopy(module)
        load_parameters(copy, mean)
        return self._inverter.inverted_part(copy)

    def _union(
        self,
        module: nn.Sequential,
        part: nn.Sequential,
        singles: list[tuple[Parameters, int]],
        inverted: list[Inverted],
    ) -> Examples:
        """All rows; a row of class c from client k weighs k's share of class c, as the models answer (R2.6).

        That share is k's mean probability of c over all rows, of the sum over clients. A soft label is the answer of
        the model in which the row was found (ADR 0010).
        """
        inputs, labels = torch.cat([one.inputs for one in inverted]), torch.cat([one.labels for one in inverted])
        if not len(labels):
            return Examples(inputs, labels)
        answers = []
        for parameters, _ in singles:
            load_parameters(module, parameters)
            answers.append(features(part, inputs).softmax(1))
        each = torch.stack(answers)
        share = each.mean(1) / each.mean(1).sum(0)
        owner = torch.repeat_interleave(
            torch.arange(len(inverted)), torch.tensor([len(one.labels) for one in inverted])
        )
        answered = each[owner, torch.arange(len(labels))] if self._terms.labels == "soft" else labels
        return Examples(inputs, answered, share[owner, labels])

    def _train(self, part: nn.Sequential, union: Examples, number: int) -> None:
        rounds, settings = self._spec.rounds, self._spec.train
        rate = settings.optimiser.rate * rounds.rate_decay ** (number - 1) * self._terms.server_rate
        train(
            part,
            union.inputs,
            labels_of(union),
            epochs=self._terms.server_epochs,
            batch_rows=settings.batch_rows,
            optimiser=msgspec.structs.replace(settings.optimiser, rate=rate),
            seed=derived(self._seed, "training", number),
            regression=False,
            weights=union.weights,
        )
